//! What header fields mean: how they are parsed, whose addresses they hold, whether they belong to a
//! resent set. The table `headers` begins with [`FIELDS`].

/// Whose addresses a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nobody's.
    None,
    /// Of senders.
    Sender,
    /// Of recipients.
    Recipient,
    /// The field is removed.
    Kill,
}

/// Meaning of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Name of the grammar; empty: it is not parsed.
    pub grammar: &'static str,
    /// Whose addresses.
    pub role: Role,
    /// Of a resent set.
    pub resent: bool,
}

/// A field that is known from the start.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) meaning: Meaning,
    pub(super) permanent: bool,
}

const fn field(
    name: &'static str,
    grammar: &'static str,
    role: Role,
    resent: bool,
    permanent: bool,
) -> Field {
    let meaning = Meaning {
        grammar,
        role,
        resent,
    };
    Field {
        name,
        meaning,
        permanent,
    }
}

const fn must(name: &'static str, grammar: &'static str, role: Role, resent: bool) -> Field {
    field(name, grammar, role, resent, true)
}

const fn may(name: &'static str, grammar: &'static str, role: Role, resent: bool) -> Field {
    field(name, grammar, role, resent, false)
}

/// The fields that are known from the start.
pub(super) const FIELDS: &[Field] = &[
    must("bcc", "Addresses", Role::Recipient, false),
    must("cc", "AddressList", Role::Recipient, false),
    must("from", "AMailboxList", Role::Sender, false),
    must("message-id", "MessageID", Role::None, false),
    must("reply-to", "AddressList", Role::Sender, false),
    must("resent-bcc", "Addresses", Role::Recipient, true),
    must("resent-cc", "AddressList", Role::Recipient, true),
    must("resent-from", "AMailboxList", Role::Sender, true),
    must("resent-message-id", "MessageID", Role::None, true),
    must("resent-reply-to", "AddressList", Role::Sender, true),
    must("resent-sender", "Mailbox", Role::Sender, true),
    must("resent-to", "AddressList", Role::Recipient, true),
    must("sender", "Mailbox", Role::Sender, false),
    must("to", "AddressList", Role::Recipient, false),
    may("return-receipt-to", "AddressList", Role::Sender, false),
    may("date", "", Role::None, false),
    may("resent-date", "", Role::None, true),
    may("encrypted", "Encrypted", Role::None, false),
    may("errors-to", "AddressList", Role::Sender, false),
    may("obsoletes", "MessageIDList", Role::None, false),
    may("envelope-id", "", Role::Kill, false),
    may("resent-envelope-id", "", Role::Kill, true),
    may("x-envid", "", Role::Kill, false),
    may("resent-x-envid", "", Role::Kill, true),
    may("x-orcpt", "", Role::Kill, false),
    may("resent-x-orcpt", "", Role::Kill, true),
    may("original-recipient", "", Role::Kill, false),
    may("resent-original-recipient", "", Role::Kill, true),
    may("x-envelope-to", "", Role::Kill, false),
    may("return-path", "", Role::Kill, false),
    may("resent-return-path", "", Role::Kill, true),
];

/// Names of grammars.
const GRAMMARS: &[&str] = &[
    "AMailboxList",
    "Address",
    "Addresses",
    "AddressList",
    "AnyWord",
    "DateTime",
    "DomainName",
    "Encrypted",
    "LocalPart",
    "Mailbox",
    "Mailboxes",
    "MailboxList",
    "MessageID",
    "MessageIDList",
    "Phrase",
    "Phrases",
    "PhraseList",
    "Received",
    "References",
    "Route",
    "RouteAddress",
    "RouteAddressInAngles",
    "SubDomain",
    "UserAtDomain",
];

impl Meaning {
    /// Reads `GRAMMAR:WHOSE:SET`, each of which may be `-`.
    ///
    /// # Errors
    /// What is wrong, and what is allowed.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = String::from_utf8_lossy(text);
        let parts: Vec<&str> = text.split(':').collect();
        let [grammar, role, set] = parts.as_slice() else {
            return Err(format!(
                "{text:?} does not have three parts: GRAMMAR:sender|recipient|kill|-:resent|-"
            ));
        };
        let known = |name: &&&str| name.eq_ignore_ascii_case(grammar);
        let grammar = match GRAMMARS.iter().find(known) {
            Some(name) => name,
            None if *grammar == "-" => "",
            None => return Err(format!("grammar {grammar:?} is not known")),
        };
        let nothing = |text: &str| {
            let words = ["", "-", "none", "normal"];
            words.iter().any(|word| word.eq_ignore_ascii_case(text))
        };
        let role = match role.to_ascii_lowercase().as_str() {
            "sender" => Role::Sender,
            "recipient" => Role::Recipient,
            "kill" => Role::Kill,
            other if nothing(other) => Role::None,
            _ => return Err(format!("{role:?} is not sender, recipient, kill or -")),
        };
        let resent = set.eq_ignore_ascii_case("resent");
        if !resent && !nothing(set) {
            return Err(format!("{set:?} is not resent or -"));
        }
        Ok(Self {
            grammar,
            role,
            resent,
        })
    }

    fn grammar_text(&self) -> &'static str {
        if self.grammar.is_empty() {
            "-"
        } else {
            self.grammar
        }
    }

    /// As a look-up gives it.
    #[must_use]
    pub fn look_up_text(&self) -> Vec<u8> {
        let role = match self.role {
            Role::Sender => "Sender",
            Role::Recipient => "Recipient",
            Role::None | Role::Kill => "",
        };
        let set = if self.resent { "Resent" } else { "" };
        format!("{}:{role}:{set}", self.grammar_text()).into_bytes()
    }

    /// As `db print` prints it.
    pub(super) fn print_text(&self) -> String {
        let role = match self.role {
            Role::None => "-",
            Role::Sender => "Sender",
            Role::Recipient => "Recipient",
            Role::Kill => "Kill",
        };
        let set = if self.resent { "Resent" } else { "-" };
        format!("{}:{role}:{set}", self.grammar_text())
    }
}
