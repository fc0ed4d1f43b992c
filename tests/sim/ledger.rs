//! The oracle's book: what was sent, what arrived where, what was reported, and what may excuse a repeat.
//!
//! Times are those of the monotonic clock, in nanoseconds. Nothing is judged before the end of a run: whether
//! a delivery had an excuse to be repeated is known only when its connection and the power have had their say.

use std::collections::{BTreeMap, BTreeSet};

/// A reply is with the relay this long after it was sent, on the slowest network.
pub const REPLY_NS: u64 = 1_000_000_000;

/// An outcome is on a healthy disk this long after the relay has it.
pub const OUTCOME_NS: u64 = 5_000_000_000;

/// How far a client has got with a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its final dot was not sent: nobody may ever see it.
    Unsent,
    /// Its final dot was sent, no answer came: it may arrive.
    Unsure,
    /// Refused at this time: it may arrive only after a power cut.
    Refused(u64),
    /// Acknowledged: every recipient is served.
    Accepted,
}

/// A message on its way in.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Empty: none to tell.
    pub sender: String,
    pub recipients: Vec<String>,
    pub content: Vec<u8>,
    pub fate: Fate,
    /// When its final dot was sent.
    pub sent_ns: u64,
}

/// One recipient served by a next hop.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    connection: usize,
    /// When the reply that says so was sent; none: never.
    told_ns: Option<u64>,
}

/// What becomes of a recipient.
#[derive(Clone, Debug, Default)]
struct Ends {
    deliveries: Vec<usize>,
    /// Times of reports, and the delivery that brought them; none: they were kept for the postmaster.
    reports: Vec<(u64, Option<usize>)>,
    /// A next hop has said no for good.
    rejected: bool,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    Lost,
    Altered,
    Twice,
    Uncalled,
    ReportWithoutCause,
    ReportTooEarly,
    Limit,
    Late,
    NotDrained,
    Restless,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    pub letters: BTreeMap<String, Letter>,
    ends: BTreeMap<(String, String), Ends>,
    deliveries: Vec<Delivery>,
    /// Of each connection: when it was lost without a QUIT.
    lost: Vec<Option<u64>>,
    /// The process ended without warning.
    crashes: Vec<u64>,
    /// Disks were failing or slow.
    troubles: Vec<(u64, u64)>,
    /// Domains whose next hop refused all mail for good, and when.
    pub refusals: Vec<(String, u64)>,
    /// What happened to the relay, for who has to find out.
    diary: Vec<(u64, String)>,
    /// Problems found, each kind with its story.
    pub wrong: Vec<(Wrong, String)>,
    pub reports_count: usize,
}

impl Ledger {
    pub fn accuse(&mut self, wrong: Wrong, story: String) {
        // The first ones tell; a broken relay makes thousands.
        if self.wrong.len() < 20 {
            self.wrong.push((wrong, story));
        }
    }

    pub fn note(&mut self, now_ns: u64, what: String) {
        self.diary.push((now_ns, what));
    }

    /// What happened from a time on.
    fn diary_from(&self, from_ns: u64) -> String {
        let lines = self.diary.iter().filter(|(at_ns, _)| *at_ns >= from_ns);
        let lines = lines.take(6).map(|(at_ns, what)| format!("{at_ns} {what}"));
        lines.collect::<Vec<_>>().join(", ")
    }

    /// A new connection to a next hop.
    pub fn connection(&mut self) -> usize {
        self.lost.push(None);
        self.lost.len() - 1
    }

    /// A connection ended without a QUIT.
    pub fn lost(&mut self, connection: usize, now_ns: u64) {
        self.lost[connection].get_or_insert(now_ns);
    }

    pub fn crash(&mut self, now_ns: u64) {
        self.crashes.push(now_ns);
    }

    /// A time in which outcomes may have waited for the disk.
    pub fn trouble(&mut self, from_ns: u64, to_ns: u64) {
        self.troubles.push((from_ns, to_ns));
    }

    /// The reply that tells of a delivery is sent.
    pub fn told(&mut self, delivery: usize, now_ns: u64) {
        self.deliveries[delivery].told_ns = Some(now_ns);
    }

    /// A next hop refuses a recipient for good.
    pub fn rejected(&mut self, content_name: &str, recipient: &str) {
        self.end(content_name, recipient).rejected = true;
    }

    fn end(&mut self, name: &str, recipient: &str) -> &mut Ends {
        let key = (name.to_owned(), recipient.to_owned());
        self.ends.entry(key).or_default()
    }

    /// A next hop has taken a message for a recipient.
    pub fn deliver(
        &mut self,
        now_ns: u64,
        connection: usize,
        sender: &str,
        recipient: &str,
        content: &[u8],
    ) -> usize {
        self.deliveries.push(Delivery {
            connection,
            told_ns: None,
        });
        let delivery = self.deliveries.len() - 1;
        if sender.is_empty() && is_report(content) {
            self.report(now_ns, Some(delivery), recipient, content);
        } else {
            self.letter(delivery, recipient, content);
        }
        delivery
    }

    fn letter(&mut self, delivery: usize, recipient: &str, content: &[u8]) {
        let name = name_of(content);
        let Some(letter) = self.letters.get(&name) else {
            self.accuse(Wrong::Uncalled, format!("{name:?} was never sent"));
            return;
        };
        if letter.fate == Fate::Unsent || !letter.recipients.iter().any(|r| r == recipient) {
            let story = format!("{name} to {recipient}: {:?}", letter.fate);
            self.accuse(Wrong::Uncalled, story);
            return;
        }
        if !is_unaltered(content, &letter.content) {
            self.accuse(Wrong::Altered, format!("{name} to {recipient}"));
        }
        self.end(&name, recipient).deliveries.push(delivery);
    }

    /// A report has arrived, or is kept for the postmaster.
    fn report(&mut self, now_ns: u64, delivery: Option<usize>, to: &str, content: &[u8]) {
        let name = to.split('@').next().unwrap_or_default().to_owned();
        let known = self.letters.get(&name);
        if known.is_none_or(|letter| letter.sender != to) {
            self.accuse(Wrong::Uncalled, format!("a report to {to}"));
            return;
        }
        for (recipient, expired) in reported(content) {
            self.reports_count += 1;
            self.check_cause(now_ns, &name, &recipient, expired);
            self.end(&name, &recipient).reports.push((now_ns, delivery));
        }
    }

    /// A message without a sender is kept for the postmaster.
    pub fn kept(&mut self, now_ns: u64, recipients: &[String], content: &[u8]) {
        for recipient in recipients {
            if is_report(content) {
                self.report(now_ns, None, recipient, content);
            } else {
                let name = name_of(content);
                self.end(&name, recipient).reports.push((now_ns, None));
            }
        }
    }

    fn check_cause(&mut self, now_ns: u64, name: &str, recipient: &str, expired: bool) {
        let letter = &self.letters[name];
        let sent_ns = letter.sent_ns;
        if expired {
            let least_ns = expiry_ns(recipient);
            // Arrivals are recorded in whole milliseconds.
            if now_ns + 1_000_000 < sent_ns + least_ns {
                let story = format!(
                    "{name} to {recipient}: {} s",
                    (now_ns - sent_ns) / SECOND_NS
                );
                self.accuse(Wrong::ReportTooEarly, story);
            }
            return;
        }
        let domain = domain_of(recipient).to_owned();
        let refused = self.refusals.iter();
        let refused = refused
            .into_iter()
            .any(|(whose, at_ns)| *whose == domain && *at_ns >= sent_ns);
        if !self.end(name, recipient).rejected && !refused {
            self.accuse(Wrong::ReportWithoutCause, format!("{name} to {recipient}"));
        }
    }

    /// Judges a run that has ended with an empty queue.
    pub fn judge(&mut self) {
        let letters = std::mem::take(&mut self.letters);
        for (name, letter) in &letters {
            for recipient in &letter.recipients {
                self.judge_one(name, letter, recipient);
            }
        }
        self.letters = letters;
    }

    fn judge_one(&mut self, name: &str, letter: &Letter, recipient: &str) {
        let key = (name.to_owned(), recipient.to_owned());
        let ends = self.ends.get(&key).cloned().unwrap_or_default();
        let seen = ends.deliveries.len() + ends.reports.len();
        match letter.fate {
            Fate::Accepted if seen == 0 => {
                let (sent_ns, diary) = (letter.sent_ns, self.diary_from(letter.sent_ns));
                let story = format!("{name} to {recipient}, sent {sent_ns}; {diary}");
                self.accuse(Wrong::Lost, story);
            }
            Fate::Refused(at_ns) if seen > 0 && !self.crashes.iter().any(|cut| *cut >= at_ns) => {
                self.accuse(Wrong::Uncalled, format!("{name} was refused at {at_ns}"));
            }
            _ => {}
        }
        let repeats = seen.saturating_sub(1);
        let excused = ends.deliveries.iter().filter(|at| self.has_excuse(**at));
        let excused = excused.count() + self.excused_reports(letter, &ends);
        if repeats > excused {
            let story = format!("{name} to {recipient}: {ends:?}, {excused} excused");
            self.accuse(Wrong::Twice, story);
        }
    }

    /// A report is staged before the outcome it speaks of: a crash in between repeats the attempt.
    fn excused_reports(&self, letter: &Letter, ends: &Ends) -> usize {
        let last = ends.reports.iter().map(|(at_ns, _)| *at_ns).max();
        let crashes = self.crashes.iter();
        let crashes = crashes
            .filter(|at_ns| **at_ns >= letter.sent_ns && last.is_some_and(|last| **at_ns <= last));
        let delivered = ends.reports.iter().filter_map(|(_, delivery)| *delivery);
        delivered.filter(|at| self.has_excuse(*at)).count() + crashes.count()
    }

    /// Whether the relay may not know of a delivery, or may have forgotten it.
    fn has_excuse(&self, delivery: usize) -> bool {
        let delivery = self.deliveries[delivery];
        let Some(told_ns) = delivery.told_ns else {
            return true;
        };
        let heard_ns = told_ns + REPLY_NS;
        if self.lost[delivery.connection].is_some_and(|at_ns| at_ns <= heard_ns) {
            return true;
        }
        let mut safe_ns = heard_ns + OUTCOME_NS;
        for (from_ns, to_ns) in &self.troubles {
            if *from_ns <= safe_ns && *to_ns >= told_ns {
                safe_ns = safe_ns.max(*to_ns + OUTCOME_NS);
            }
        }
        let mut crashes = self.crashes.iter();
        crashes.any(|at_ns| (told_ns..=safe_ns).contains(at_ns))
    }

    pub fn accepted_count(&self) -> usize {
        let letters = self.letters.values();
        letters
            .filter(|letter| letter.fate == Fate::Accepted)
            .count()
    }

    /// Deliveries beyond the first of each recipient.
    pub fn repeats_count(&self) -> usize {
        let all = self.ends.values();
        all.map(|ends| ends.deliveries.len().saturating_sub(1))
            .sum()
    }

    /// The content names that were ever delivered to some recipient.
    pub fn delivered_names(&self) -> BTreeSet<&str> {
        let all = self.ends.iter();
        all.filter(|(_, ends)| !ends.deliveries.is_empty())
            .map(|((name, _), _)| name.as_str())
            .collect()
    }
}

pub const SECOND_NS: u64 = 1_000_000_000;
pub const HOUR_NS: u64 = 3600 * SECOND_NS;

/// Mail to each domain is given up after this: the number in its name is hours.
pub fn expiry_ns(address: &str) -> u64 {
    let digits = domain_of(address).trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find('h').unwrap_or(0);
    digits[..end].parse::<u64>().unwrap_or(120) * HOUR_NS
}

pub fn domain_of(address: &str) -> &str {
    address.rsplit('@').next().unwrap_or_default()
}

/// What the sender calls its letter.
pub fn name_of(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content);
    let field = text.lines().find_map(|line| line.strip_prefix("X-Name: "));
    field.unwrap_or("nameless").to_owned()
}

fn is_report(content: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content);
    text.lines()
        .take_while(|line| !line.is_empty())
        .any(|line| line.starts_with("Content-Type: multipart/report"))
}

fn is_unaltered(arrived: &[u8], sent: &[u8]) -> bool {
    arrived.ends_with(sent) && arrived.starts_with(b"Received: from client.example ")
}

/// Recipients that a report speaks of, and whether they were given up.
fn reported(content: &[u8]) -> Vec<(String, bool)> {
    let text = String::from_utf8_lossy(content).into_owned();
    let mut found: Vec<(String, bool)> = Vec::new();
    for line in text.lines() {
        if let Some(address) = line.strip_prefix("Final-Recipient: rfc822; ") {
            found.push((address.to_owned(), false));
        } else if line == "Status: 4.4.7"
            && let Some(last) = found.last_mut()
        {
            last.1 = true;
        }
    }
    found
}
