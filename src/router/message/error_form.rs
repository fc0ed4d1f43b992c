//! What the hosts of the channels `error` and `hold` say: names of forms, and why something waits.

/// RFC 3463 code and text of an error form; none: the name is a text itself.
pub(super) fn failure(form: &[u8]) -> (&'static str, Option<&'static str>) {
    let known = FORMS.iter().find(|(name, ..)| name.as_bytes() == form);
    known.map_or((OTHER, None), |(_, status, text)| (*status, Some(*text)))
}

/// RFC 3463 3.2: other address status.
const OTHER: &str = "5.1.0";

/// Name, code, text.
const FORMS: &[(&str, &str, &str)] = &[
    ("acctexpired", "5.2.1", "the account has expired"),
    (
        "bitnetgw",
        "5.1.2",
        "this gateway does not serve the address",
    ),
    ("bounce", "5.7.1", "mail for this address is refused"),
    ("database", "5.1.2", "there is no such host or domain"),
    ("expansion", "5.2.4", "the list could not be expanded"),
    (
        "ip-number",
        "5.1.3",
        "an address literal stands in brackets: user@[192.0.2.1]",
    ),
    ("localhost", "5.1.2", "localhost is no host for mail"),
    ("loopexceeded", "5.4.6", "the message goes in circles"),
    ("nonewsgroup", "5.1.1", "there is no such newsgroup"),
    ("norealname", "5.1.1", "there is nobody of this name"),
    ("nosuchuser", "5.1.1", "there is no such user"),
    ("unresolvable", "5.1.2", "nobody knows where the address is"),
    ("user", "5.1.1", "there is no such user"),
    ("vms-in-pros", "5.1.3", "IN%\"...\" is no address here"),
    ("wrongname", "5.1.2", "the domain has another name"),
];

/// RFC 3463 code of what a routing waits for.
pub(super) fn waiting(reason: &[u8]) -> &'static str {
    if reason.starts_with(b"NS:") {
        // 4.4.3: directory server failure.
        "4.4.3"
    } else {
        "4.3.0"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_have_codes() {
        assert_eq!(failure(b"nosuchuser").0, "5.1.1");
        assert_eq!(failure(b"we moved away"), ("5.1.0", None));
        assert!(FORMS.is_sorted());
        assert!(FORMS.iter().all(|(_, status, _)| status.starts_with("5.")));
        assert_eq!(waiting(b"NS:x/mx"), "4.4.3");
        assert_eq!(waiting(b"IO:x"), "4.3.0");
    }
}
