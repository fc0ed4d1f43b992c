//! Answers what scripts ask at once: for tools that run a script and have nothing else to do.
//!
//! The daemon's shards never wait here; they hand requests to the control thread, which uses the same functions.

mod account;
mod file;
mod glob;
mod load;
mod program;
pub mod rights;
mod session;
mod settings;

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::control::users::Users;
use crate::router::request::{Answer, Failure, Request, Stat};
use rights::{Kind, Question, Rights};

pub use file::failure;
pub use load::{Configuration, LoadError, load};
pub use session::Session;

/// What a script may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Everything that its account may: `zmailer zmsh`.
    Everything,
    /// No programs.
    NoPrograms,
}

/// Answers requests on the calling thread.
pub struct Local {
    permission: Permission,
    /// Users who have a mailbox here; none: accounts are all there is.
    users: Option<Arc<Users>>,
    /// Longest time that a program may take.
    program_time: Duration,
    /// Who reads files with the rights of their users; none: we, as far as we may.
    rights: Option<Rights>,
}

impl Local {
    /// With these permissions.
    #[must_use]
    pub fn new(permission: Permission, program_time: Duration) -> Self {
        Self {
            permission,
            users: None,
            program_time,
            rights: None,
        }
    }

    /// With somebody who has the rights of users.
    #[must_use]
    pub fn with_rights(mut self, rights: Option<Rights>) -> Self {
        self.rights = rights;
        self
    }

    /// With the rights of root nothing is read that we may not read ourselves, but what the agent thinks fit.
    fn read(&self, path: Vec<u8>, user: Option<u32>) -> Result<(Vec<u8>, Stat), Failure> {
        let (Some(rights), Some(of)) = (&self.rights, user) else {
            return file::read(&path, user);
        };
        if of == 0
            && let Ok(found) = file::read(&path, None)
        {
            return Ok(found);
        }
        let kind = Kind::Read;
        rights.ask(&Question { kind, user, path })
    }

    /// Our own eyes first: most files are open to all.
    fn stat(&self, path: Vec<u8>, link: bool, user: Option<u32>) -> Result<Stat, Failure> {
        let kind = if link { Kind::Link } else { Kind::Stat };
        let asked = match (&self.rights, user) {
            (Some(rights), Some(_)) => Some(rights),
            (Some(rights), None) if file::is_hidden(&path, link) => Some(rights),
            _ => None,
        };
        match asked {
            Some(rights) => rights
                .ask(&Question { kind, user, path })
                .map(|(_, stat)| stat),
            None => file::stat(&path, link),
        }
    }

    /// The answer; questions to databases and requests about maps are for others.
    pub fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Read { path, user } => Answer::File(self.read(path, user)),
            Request::Write {
                path,
                append,
                bytes,
            } => Answer::Done(file::write(&path, append, &bytes)),
            Request::Stat { path, link, user } => Answer::Stat(self.stat(path, link, user)),
            Request::Glob { pattern } => Answer::Paths(glob::paths(&pattern)),
            Request::Program { name, path } => {
                let found = program::found(&name, &path);
                Answer::Paths(
                    found
                        .map(|path| path.into_os_string().into_encoded_bytes())
                        .into_iter()
                        .collect(),
                )
            }
            Request::Account(name) => {
                Answer::Account(account::by_name(&name, self.users.as_deref()))
            }
            Request::AccountOf(number) => Answer::Account(account::by_number(number)),
            Request::Group(name) => Answer::Group(account::members(&name)),
            Request::Run(run) => match self.permission {
                Permission::Everything => program::run(&run, self.program_time),
                Permission::NoPrograms => {
                    let name = run
                        .arguments
                        .first()
                        .map(|name| String::from_utf8_lossy(name).into_owned());
                    Answer::NotRun(format!(
                        "{}: not found, and programs are not allowed (router.programs)",
                        name.unwrap_or_default()
                    ))
                }
            },
            Request::Directory(path) => Answer::Done(file::change_directory(&path)),
            Request::Umask(mask) => Answer::Umask(file::umask(mask)),
            Request::Output { descriptor, bytes } => Answer::Done(output(descriptor, &bytes)),
            Request::Line => Answer::Line(line()),
            Request::Sleep { seconds } => {
                std::thread::sleep(Duration::from_secs(seconds));
                Answer::Done(Ok(()))
            }
            Request::Log { priority, text } => {
                let text = String::from_utf8_lossy(&text);
                tracing::info!(target: "script", %priority, "{text}");
                Answer::Done(Ok(()))
            }
            Request::Hostname => Answer::Hostname(hostname()),
            Request::Time => {
                let now = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                Answer::Time(now.as_secs())
            }
            Request::Ask(_) | Request::Map(_) => {
                unreachable!("questions and maps are not answered here")
            }
        }
    }
}

fn output(descriptor: u8, bytes: &[u8]) -> Result<(), Failure> {
    let result = match descriptor {
        2 => io::stderr().write_all(bytes),
        _ => {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
    };
    result.map_err(|error| failure(b"output", &error))
}

/// Longest line that `read` takes from the standard input.
const LINE_BYTES_MAX: u64 = 1 << 20;

fn line() -> Vec<u8> {
    let mut line = Vec::new();
    let input = io::stdin().lock();
    // An error is the end.
    let _ = io::Read::take(input, LINE_BYTES_MAX).read_until(b'\n', &mut line);
    line
}

fn hostname() -> Vec<u8> {
    rustix::system::uname().nodename().to_bytes().to_vec()
}
