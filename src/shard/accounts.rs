//! What a shard remembers of accounts: routing asks for the same ones with each message to them.

use crate::base::fast_map::FastMap;
use crate::router::request::{Account, Answer, Request};

/// Accounts remembered; beyond it all are asked for again.
const ACCOUNTS_MAX: usize = 20_000;

/// How long an account is remembered, and that there is none.
const KNOWN_NS: u64 = 10_000_000_000;
const UNKNOWN_NS: u64 = 1_000_000_000;

/// By name: the account, or that there is none, and until when that counts (monotonic nanoseconds).
#[derive(Debug, Default)]
pub(super) struct Accounts {
    known: FastMap<Vec<u8>, (Option<Account>, u64)>,
}

impl Accounts {
    /// The answer, when it is known.
    pub(super) fn answer(&self, request: &Request, now_ns: u64) -> Option<Answer> {
        let (account, until_ns) = self.known.get(name(request)?)?;
        (*until_ns > now_ns).then(|| Answer::Account(Ok(account.clone())))
    }

    /// Remembers what was found out; that it cannot be found out now is not remembered.
    pub(super) fn learn(&mut self, name: Vec<u8>, answer: &Answer, now_ns: u64) {
        let Answer::Account(Ok(account)) = answer else {
            return;
        };
        if self.known.len() >= ACCOUNTS_MAX {
            self.known.clear();
        }
        let lasts_ns = match account {
            Some(_) => KNOWN_NS,
            None => UNKNOWN_NS,
        };
        let until_ns = now_ns.saturating_add(lasts_ns);
        self.known.insert(name, (account.clone(), until_ns));
    }
}

/// Whose account is asked for.
pub(super) fn name(request: &Request) -> Option<&[u8]> {
    match request {
        Request::Account(name) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joe() -> Account {
        Account {
            name: b"joe".to_vec(),
            user: 1000,
            full_name: Vec::new(),
            home: b"/users/joe".to_vec(),
        }
    }

    #[test]
    fn an_answer_counts_for_its_time() {
        let mut accounts = Accounts::default();
        let (joe_is, nobody_is) = (Answer::Account(Ok(Some(joe()))), Answer::Account(Ok(None)));
        let ask = |accounts: &Accounts, name: &[u8], now| {
            accounts.answer(&Request::Account(name.to_vec()), now)
        };
        assert_eq!(ask(&accounts, b"joe", 0), None);
        accounts.learn(b"joe".to_vec(), &joe_is, 5);
        accounts.learn(b"ann".to_vec(), &nobody_is, 5);
        assert_eq!(ask(&accounts, b"joe", KNOWN_NS + 4), Some(joe_is));
        assert_eq!(ask(&accounts, b"joe", KNOWN_NS + 5), None);
        assert_eq!(ask(&accounts, b"ann", UNKNOWN_NS + 4), Some(nobody_is));
        assert_eq!(ask(&accounts, b"ann", UNKNOWN_NS + 5), None);
        assert_eq!(ask(&accounts, b"Joe", 5), None);
        assert_eq!(accounts.answer(&Request::AccountOf(1000), 5), None);
    }

    #[test]
    fn a_failure_is_not_remembered_and_there_is_a_bound() {
        let mut accounts = Accounts::default();
        let failure = crate::router::request::Failure {
            missing: false,
            temporary: false,
            text: "no answer".to_owned(),
        };
        accounts.learn(b"joe".to_vec(), &Answer::Account(Err(failure)), 0);
        assert_eq!(accounts.known.len(), 0);
        for number in 0..=ACCOUNTS_MAX {
            let name = number.to_string().into_bytes();
            accounts.learn(name, &Answer::Account(Ok(None)), 0);
        }
        assert_eq!(accounts.known.len(), 1);
    }
}
