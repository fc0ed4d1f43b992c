//! One command line to a [`Command`] (RFC 5321 4.1.1, RFC 3030, RFC 3461, RFC 6531).

#![expect(missing_docs, reason = "fields are named for what they hold")]

use super::path::{self, PathError};

/// A command with its arguments taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// BDAT size and LAST.
    Bdat { size: u64, last: bool },
    /// DATA.
    Data,
    /// EHLO and the client's name.
    Ehlo(&'a [u8]),
    /// LHLO and the client's name (RFC 2033).
    Lhlo(&'a [u8]),
    /// HELO and the client's name.
    Helo(&'a [u8]),
    /// HELP.
    Help,
    /// MAIL.
    Mail(Mail<'a>),
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
    /// RCPT.
    Rcpt(Rcpt<'a>),
    /// RSET.
    Rset,
    /// VRFY.
    Vrfy,
    /// A verb of the standard that this server does not offer.
    Unimplemented,
}

/// How the content is declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyKind {
    /// 7BIT.
    #[default]
    SevenBit,
    /// 8BITMIME (RFC 6152).
    EightBit,
    /// BINARYMIME (RFC 3030).
    Binary,
}

/// RET (RFC 3461 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// FULL.
    Full,
    /// HDRS.
    Headers,
}

/// Arguments of MAIL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mail<'a> {
    /// Sender without brackets; empty: null.
    pub address: &'a [u8],
    /// SIZE.
    pub size: Option<u64>,
    /// BODY.
    pub body: BodyKind,
    /// SMTPUTF8.
    pub smtputf8: bool,
    /// RET.
    pub ret: Option<Ret>,
    /// ENVID, xtext as given.
    pub envid: Option<&'a [u8]>,
    /// XSPOOLID, between the daemon and its own agents.
    pub spool_id: Option<&'a [u8]>,
}

/// Arguments of RCPT. The address is checked by the session, which knows about SMTPUTF8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rcpt<'a> {
    /// Recipient without brackets.
    pub address: &'a [u8],
    /// NOTIFY: 1 NEVER, 2 SUCCESS, 4 FAILURE, 8 DELAY; 0 not given.
    pub notify: u8,
    /// ORCPT, as given.
    pub orcpt: Option<&'a [u8]>,
    /// XTARGET, between the daemon and its own agents: a program or file, xtext as given.
    pub target: Option<&'a [u8]>,
    /// XPRIVILEGE, likewise: the number of the account it is delivered as.
    pub privilege: Option<u32>,
}

/// Why a line is not a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// No such verb.
    Unknown,
    /// The arguments do not follow the grammar.
    Syntax,
    /// The sender's address.
    Sender(PathError),
    /// The recipient's address.
    Recipient(PathError),
    /// A parameter that this server does not know.
    Parameter,
    /// A parameter's value.
    Value,
    /// BDAT whose size cannot be read: nobody knows where the next command begins.
    Chunk,
    /// A request of another protocol: what follows it may hold commands that its sender did not
    /// write as such.
    Foreign,
}

impl CommandError {
    /// The reply.
    #[must_use]
    pub fn reply(self) -> &'static str {
        match self {
            Self::Unknown => "500 5.5.2 command not recognized",
            Self::Syntax => "501 5.5.4 syntax error in arguments",
            Self::Sender(PathError::EightBit) | Self::Recipient(PathError::EightBit) => {
                "553 5.6.7 an 8-bit address needs SMTPUTF8"
            }
            Self::Sender(PathError::TooLong) => "501 5.1.7 sender address too long",
            Self::Sender(PathError::Syntax) => "501 5.1.7 bad sender address syntax",
            Self::Recipient(PathError::TooLong) => "501 5.1.3 recipient address too long",
            Self::Recipient(PathError::Syntax) => "501 5.1.3 bad recipient address syntax",
            Self::Parameter => "555 5.5.4 parameter not recognized",
            Self::Value => "501 5.5.4 bad parameter value",
            Self::Chunk => "501 5.5.4 bad chunk size, closing",
            Self::Foreign => "554 5.5.1 this is not HTTP, closing",
        }
    }

    /// Whether going on would take data for commands.
    #[must_use]
    pub fn ends_session(self) -> bool {
        matches!(self, Self::Chunk | Self::Foreign)
    }
}

/// Parses a line without its CR LF.
///
/// # Errors
/// See [`CommandError`].
pub fn parse(line: &[u8]) -> Result<Command<'_>, CommandError> {
    let line = line.trim_ascii_end();
    let end = line
        .iter()
        .position(|byte| *byte == b' ')
        .unwrap_or(line.len());
    let (verb, arguments) = line.split_at_checked(end).unwrap_or((line, &[]));
    let arguments = arguments.trim_ascii_start();
    let mut upper = [0u8; 8];
    let Some(upper) = upper.get_mut(..verb.len()) else {
        return Err(CommandError::Unknown);
    };
    upper.copy_from_slice(verb);
    upper.make_ascii_uppercase();
    match &*upper {
        b"MAIL" => mail(arguments).map(Command::Mail),
        b"RCPT" => rcpt(arguments).map(Command::Rcpt),
        b"DATA" => alone(arguments, Command::Data),
        b"BDAT" => bdat(arguments),
        b"EHLO" => name(arguments).map(Command::Ehlo),
        b"LHLO" => name(arguments).map(Command::Lhlo),
        b"HELO" => name(arguments).map(Command::Helo),
        b"RSET" => alone(arguments, Command::Rset),
        b"QUIT" => alone(arguments, Command::Quit),
        b"NOOP" => Ok(Command::Noop),
        b"HELP" => Ok(Command::Help),
        b"VRFY" if arguments.is_empty() => Err(CommandError::Syntax),
        b"VRFY" => Ok(Command::Vrfy),
        b"EXPN" | b"TURN" | b"ETRN" | b"AUTH" | b"STARTTLS" | b"SEND" | b"SAML" | b"SOML" => {
            Ok(Command::Unimplemented)
        }
        b"GET" | b"POST" | b"PUT" | b"HEAD" | b"CONNECT" | b"OPTIONS" => Err(CommandError::Foreign),
        _ => Err(CommandError::Unknown),
    }
}

fn alone<'a>(arguments: &[u8], command: Command<'a>) -> Result<Command<'a>, CommandError> {
    if arguments.is_empty() {
        Ok(command)
    } else {
        Err(CommandError::Syntax)
    }
}

/// RFC 5321 4.1.1.1 wants a domain or literal; 4.1.4 forbids refusing mail for a wrong one, so any
/// printable word is taken.
fn name(arguments: &[u8]) -> Result<&[u8], CommandError> {
    let good = !arguments.is_empty()
        && arguments.len() <= 255
        && arguments
            .iter()
            .all(|byte| (0x21..0x7f).contains(byte) || *byte >= 0x80);
    if good {
        Ok(arguments)
    } else {
        Err(CommandError::Syntax)
    }
}

fn strip_keyword<'a>(arguments: &'a [u8], keyword: &[u8]) -> Result<&'a [u8], CommandError> {
    let (head, rest) = arguments
        .split_at_checked(keyword.len())
        .ok_or(CommandError::Syntax)?;
    if head.eq_ignore_ascii_case(keyword) {
        // RFC 5321 3.3 forbids the space; many clients send it.
        Ok(rest.trim_ascii_start())
    } else {
        Err(CommandError::Syntax)
    }
}

fn parameters(rest: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    rest.split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty())
        .map(|word| {
            let Some(at) = word.iter().position(|byte| *byte == b'=') else {
                return (word, None);
            };
            (word.get(..at).unwrap_or(word), word.get(at + 1..))
        })
}

fn mail(arguments: &[u8]) -> Result<Mail<'_>, CommandError> {
    let text = strip_keyword(arguments, b"FROM:")?;
    let path = path::take(text).map_err(CommandError::Sender)?;
    let mut mail = Mail {
        address: path.address,
        ..Mail::default()
    };
    for (name, value) in parameters(path.rest) {
        mail_parameter(&mut mail, name, value)?;
    }
    if !mail.address.is_empty() {
        path::check(mail.address, mail.smtputf8).map_err(CommandError::Sender)?;
    }
    Ok(mail)
}

fn mail_parameter<'a>(
    mail: &mut Mail<'a>,
    name: &[u8],
    value: Option<&'a [u8]>,
) -> Result<(), CommandError> {
    if name.eq_ignore_ascii_case(b"SIZE") {
        mail.size = Some(value.and_then(number).ok_or(CommandError::Value)?);
    } else if name.eq_ignore_ascii_case(b"BODY") {
        mail.body = match value.unwrap_or_default().to_ascii_uppercase().as_slice() {
            b"7BIT" => BodyKind::SevenBit,
            b"8BITMIME" => BodyKind::EightBit,
            b"BINARYMIME" => BodyKind::Binary,
            _ => return Err(CommandError::Value),
        };
    } else if name.eq_ignore_ascii_case(b"SMTPUTF8") && value.is_none() {
        mail.smtputf8 = true;
    } else if name.eq_ignore_ascii_case(b"RET") && mail.ret.is_none() {
        mail.ret = match value.unwrap_or_default().to_ascii_uppercase().as_slice() {
            b"FULL" => Some(Ret::Full),
            b"HDRS" => Some(Ret::Headers),
            _ => return Err(CommandError::Value),
        };
    } else if name.eq_ignore_ascii_case(b"ENVID") && mail.envid.is_none() {
        // RFC 3461 4.4: 100 characters of xtext.
        let value = value.filter(|value| value.len() <= 100 && is_xtext(value));
        mail.envid = Some(value.ok_or(CommandError::Value)?);
    } else if name.eq_ignore_ascii_case(b"XSPOOLID") && mail.spool_id.is_none() {
        mail.spool_id = Some(value.ok_or(CommandError::Value)?);
    } else {
        return Err(CommandError::Parameter);
    }
    Ok(())
}

fn rcpt(arguments: &[u8]) -> Result<Rcpt<'_>, CommandError> {
    let text = strip_keyword(arguments, b"TO:")?;
    let path = path::take(text).map_err(CommandError::Recipient)?;
    if path.address.is_empty() {
        return Err(CommandError::Recipient(PathError::Syntax));
    }
    let mut rcpt = Rcpt {
        address: path.address,
        ..Rcpt::default()
    };
    for (name, value) in parameters(path.rest) {
        if name.eq_ignore_ascii_case(b"NOTIFY") && rcpt.notify == 0 {
            rcpt.notify = notify(value.unwrap_or_default()).ok_or(CommandError::Value)?;
        } else if name.eq_ignore_ascii_case(b"ORCPT") && rcpt.orcpt.is_none() {
            rcpt.orcpt = Some(
                value
                    .filter(|value| is_orcpt(value))
                    .ok_or(CommandError::Value)?,
            );
        } else if name.eq_ignore_ascii_case(b"XTARGET") && rcpt.target.is_none() {
            let value = value.filter(|value| is_xtext(value));
            rcpt.target = Some(value.ok_or(CommandError::Value)?);
        } else if name.eq_ignore_ascii_case(b"XPRIVILEGE") && rcpt.privilege.is_none() {
            let number = value
                .and_then(number)
                .and_then(|number| u32::try_from(number).ok());
            rcpt.privilege = Some(number.ok_or(CommandError::Value)?);
        } else {
            return Err(CommandError::Parameter);
        }
    }
    Ok(rcpt)
}

/// RFC 3461 4.1: NEVER alone, or any of the others.
fn notify(value: &[u8]) -> Option<u8> {
    let mut bits = 0;
    for word in value.split(|byte| *byte == b',') {
        bits |= match word.to_ascii_uppercase().as_slice() {
            b"NEVER" => 1,
            b"SUCCESS" => 2,
            b"FAILURE" => 4,
            b"DELAY" => 8,
            _ => return None,
        };
    }
    (bits == 1 || bits & 1 == 0).then_some(bits)
}

/// RFC 3461 4.2: address type, semicolon, xtext; 500 characters.
fn is_orcpt(value: &[u8]) -> bool {
    let Some(at) = value.iter().position(|byte| *byte == b';') else {
        return false;
    };
    let (kind, address) = value.split_at_checked(at).unwrap_or((value, &[]));
    let known = !kind.is_empty()
        && kind
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    let utf8 = kind.eq_ignore_ascii_case(b"utf-8");
    let address = address.get(1..).unwrap_or_default();
    known && value.len() <= 500 && (is_xtext(address) || (utf8 && !address.is_empty()))
}

fn is_xtext(text: &[u8]) -> bool {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => {
                let hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
                if !hex(bytes.next()) || !hex(bytes.next()) {
                    return false;
                }
            }
            b'=' => return false,
            0x21..=0x7e => {}
            _ => return false,
        }
    }
    !text.is_empty()
}

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(text).ok()?.parse().ok()
}

fn bdat(arguments: &[u8]) -> Result<Command<'_>, CommandError> {
    let mut words = arguments
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty());
    let size = words.next().and_then(number).ok_or(CommandError::Chunk)?;
    let last = match (words.next(), words.next()) {
        (None, _) => false,
        (Some(word), None) if word.eq_ignore_ascii_case(b"LAST") => true,
        _ => return Err(CommandError::Chunk),
    };
    Ok(Command::Bdat { size, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_taken_apart() {
        let Ok(Command::Mail(mail)) =
            parse(b"mail from:<a@b.example> SIZE=12 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x+2Dy")
        else {
            panic!("a good MAIL")
        };
        assert_eq!(mail.address, b"a@b.example");
        assert_eq!(
            (mail.size, mail.body, mail.smtputf8),
            (Some(12), BodyKind::EightBit, true)
        );
        assert_eq!(
            (mail.ret, mail.envid),
            (Some(Ret::Headers), Some(&b"x+2Dy"[..]))
        );
        let Ok(Command::Rcpt(rcpt)) =
            parse(b"RCPT TO:<a@b.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@b.example")
        else {
            panic!("a good RCPT")
        };
        assert_eq!(
            (rcpt.notify, rcpt.orcpt),
            (10, Some(&b"rfc822;a@b.example"[..]))
        );
        assert_eq!(
            parse(b"BDAT 5 last"),
            Ok(Command::Bdat {
                size: 5,
                last: true
            })
        );
    }

    #[test]
    fn wrong_lines_get_their_error() {
        const CASES: &[(&str, CommandError)] = &[
            ("FROB", CommandError::Unknown),
            ("STARTTLSX", CommandError::Unknown),
            ("MAIL", CommandError::Syntax),
            (
                "MAIL FROM:a@b.example",
                CommandError::Sender(PathError::Syntax),
            ),
            ("MAIL FROM:<a@b.example> FOO=1", CommandError::Parameter),
            ("MAIL FROM:<a@b.example> SIZE=x", CommandError::Value),
            ("MAIL FROM:<a@b.example> RET=SOME", CommandError::Value),
            ("RCPT TO:<>", CommandError::Recipient(PathError::Syntax)),
            (
                "RCPT TO:<a@b.example> NOTIFY=NEVER,DELAY",
                CommandError::Value,
            ),
            (
                "RCPT TO:<a@b.example> ORCPT=a@b.example",
                CommandError::Value,
            ),
            ("DATA now", CommandError::Syntax),
            ("RCPT TO:<a@b.example> XTARGET=+7", CommandError::Value),
            (
                "RCPT TO:<a@b.example> XPRIVILEGE=4294967296",
                CommandError::Value,
            ),
            ("BDAT", CommandError::Chunk),
            ("BDAT 5 FIRST", CommandError::Chunk),
            ("BDAT -5", CommandError::Chunk),
            ("BDAT 99999999999999999999", CommandError::Chunk),
            ("GET / HTTP/1.1", CommandError::Foreign),
            ("EHLO", CommandError::Syntax),
            ("VRFY", CommandError::Syntax),
        ];
        for (line, error) in CASES {
            assert_eq!(parse(line.as_bytes()), Err(*error), "{line}");
        }
    }
}
