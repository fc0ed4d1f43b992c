//! The shipped scripts beside ZMailer's own: every address of the recordings in
//! `tests/conformance/routing`, and what an administrator expects of a few files.
//!
//! The host of the recordings is a table in memory: files with owners and modes, accounts, no name
//! servers. Each row gives what ZMailer gave or has its reason to differ, and one that differs has to.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use zmailer::base::clock::Now;
use zmailer::router::loaded::{Loaded, Plan, Script, Setting};
use zmailer::router::machine::{Evaluation, MapRequest, Turn};
use zmailer::router::relation::source::{Parsed, Syntax};
use zmailer::router::relation::{self, Held, MapId, Maps, Question, Reply, Unavailable, Version};
use zmailer::router::request::{Account, Answer, Failure, Request, Stat};
use zmailer::router::stock;
use zmailer::router::value::Value;

/// Rows that differ, and why.
const BETTER: &[(&str, &str)] = &[
    (
        "incl",
        "aliases may name a file; the pattern for it in ZMailer's scripts can never match",
    ),
    ("incl2", "the same without quotes"),
    ("bob@", "the @ is lost in ZMailer"),
    ("joe@", "the @ is lost in ZMailer"),
    ("@", "an address of nothing is shown as one in brackets"),
];

const ROOT: &str = "/installation";
const HOST: &str = "mta.example.org";
/// Directory of the homes, as in the recorded accounts.
const HOMES: &str = "home";
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

/// A file or directory of the host.
#[derive(Clone, Debug)]
struct File {
    mode: u32,
    user: u32,
    content: Vec<u8>,
}

/// The host.
#[derive(Default)]
struct Host {
    files: BTreeMap<String, File>,
    passwd: String,
    group: String,
    maps: RefCell<BTreeMap<u32, Arc<Version>>>,
}

impl Maps for Host {
    fn map(&self, id: MapId) -> Result<Held<'_>, Unavailable> {
        let maps = self.maps.borrow();
        let version = maps.get(&id.0).ok_or_else(Unavailable::io)?;
        Ok(Held::Shared(Version::clone(version)))
    }
}

impl Host {
    fn put(&mut self, path: &str, mode: u32, user: u32, content: &str) {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let above = File {
            mode: DIRECTORY | 0o755,
            user: if user == 0 || directory.contains("/lists") {
                0
            } else {
                user
            },
            content: Vec::new(),
        };
        self.files.entry(directory.to_owned()).or_insert(above);
        let file = File {
            mode: REGULAR | mode,
            user,
            content: content.replace("$ROOT", ROOT).into_bytes(),
        };
        self.files.insert(path.to_owned(), file);
    }

    fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Stat { path, .. } => Answer::Stat(self.file(&path).map(|file| stat(&file))),
            Request::Read { path, user } => Answer::File(self.read(&path, user)),
            Request::Account(name) => {
                Answer::Account(Ok(self.account(|account| account.name == name)))
            }
            Request::AccountOf(user) => {
                Answer::Account(Ok(self.account(|account| account.user == user)))
            }
            Request::Group(name) => Answer::Group(Ok(self.members(&name))),
            Request::Ask(Question::Bind { record, name }) => {
                let name = String::from_utf8_lossy(&name).into_owned();
                Answer::Reply(Reply::Later(
                    format!("NS:{name}/{}", record.name()).into_bytes(),
                ))
            }
            Request::Ask(Question::SelfMatch { address }) => Answer::Reply(match &*address {
                b"127.0.0.1" => Reply::Text(address, None),
                _ => Reply::Missing(None),
            }),
            Request::Map(MapRequest::Open { id, source }) => Answer::Done(self.open(id, &source)),
            Request::Program { .. } => Answer::Paths(Vec::new()),
            Request::Hostname => Answer::Hostname(HOST.into()),
            Request::Output { bytes, .. } => {
                panic!("a script said {:?}", String::from_utf8_lossy(&bytes))
            }
            Request::Log { .. } => Answer::Done(Ok(())),
            other => panic!("routing asks for {other:?}"),
        }
    }

    fn file(&self, path: &[u8]) -> Result<File, Failure> {
        let path = String::from_utf8_lossy(path);
        self.files.get(&*path).cloned().ok_or_else(|| Failure {
            missing: true,
            temporary: false,
            text: format!("{path}: No such file or directory"),
        })
    }

    fn read(&self, path: &[u8], user: Option<u32>) -> Result<(Vec<u8>, Stat), Failure> {
        let file = self.file(path)?;
        let may = match user {
            None | Some(0) => true,
            Some(user) if user == file.user => file.mode & 0o400 != 0,
            Some(_) => file.mode & 0o4 != 0,
        };
        if !may {
            return Err(Failure {
                missing: false,
                temporary: false,
                text: "Permission denied".to_owned(),
            });
        }
        let stat = stat(&file);
        Ok((file.content, stat))
    }

    fn open(&self, id: MapId, source: &relation::Source) -> Result<(), Failure> {
        let file = self.file(&source.path)?;
        let map = relation::build(source, file.content, Vec::new()).map_err(|text| Failure {
            missing: false,
            temporary: false,
            text,
        })?;
        let version = Version {
            map,
            owner: file.user,
        };
        self.maps.borrow_mut().insert(id.0, Arc::new(version));
        Ok(())
    }

    fn account(&self, fits: impl Fn(&Account) -> bool) -> Option<Account> {
        let accounts = self.passwd.lines().map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            Account {
                name: fields[0].into(),
                user: fields[2].parse().unwrap(),
                full_name: fields[4].into(),
                home: fields[5].into(),
            }
        });
        accounts.into_iter().find(fits)
    }

    fn members(&self, name: &[u8]) -> Option<Vec<Vec<u8>>> {
        let line = self.group.lines().find(|line| {
            line.split(':')
                .next()
                .is_some_and(|of| of.as_bytes() == name)
        })?;
        let members = line.rsplit(':').next()?.split(',');
        Some(
            members
                .filter(|name| !name.is_empty())
                .map(Into::into)
                .collect(),
        )
    }

    /// Loads the shipped scripts here.
    fn load(&self, variables: &[(&str, Setting)]) -> Evaluation {
        let mut all = vec![
            ("MAILVAR".to_owned(), text(&format!("{ROOT}/var"))),
            ("hostname".to_owned(), text(HOST)),
        ];
        all.extend(
            variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone())),
        );
        let scripts = stock::FILES.iter().map(|(name, text)| Script {
            name: (*name).to_owned(),
            text: text.as_bytes().to_vec(),
            arguments: Vec::new(),
        });
        let plan = Plan {
            variables: all,
            scripts: scripts.collect(),
            ..Plan::default()
        };
        let loaded = Loaded::new(plan, |request, _| self.answer(request), self);
        loaded.unwrap_or_else(|error| panic!("{error}")).1
    }

    /// Calls a function of the scripts; what it returns, and the attribute lists that are named in it.
    fn call(&self, scripts: &mut Evaluation, name: &str, arguments: Vec<Value>) -> String {
        assert!(scripts.call(name.as_bytes(), arguments), "{name}");
        loop {
            match scripts.run(self, Now::default()) {
                Turn::Done(_) => break,
                Turn::More => {}
                Turn::Need(request) => {
                    let answer = self.answer(request);
                    scripts.answer(answer);
                }
                Turn::Stopped(limit) => panic!("{limit:?}"),
            }
        }
        shown(&scripts.take_returned().unwrap_or(Value::nil()))
    }
}

fn text(text: &str) -> Setting {
    Setting::Text(text.to_owned())
}

fn list(texts: &[&str]) -> Setting {
    Setting::List(texts.iter().map(|text| (*text).to_owned()).collect())
}

fn stat(file: &File) -> Stat {
    Stat {
        mode: file.mode,
        user: file.user,
        size: file.content.len() as u64,
        access: 7,
        ..Stat::default()
    }
}

fn shown(value: &Value) -> String {
    let mut output = Vec::new();
    value.grind(&mut output);
    String::from_utf8(output)
        .unwrap()
        .trim_end()
        .replace(ROOT, "$ROOT")
}

/// Names of attribute lists, in the order in which they come; the numbers mean nothing.
fn names(result: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for word in result.split(|byte: char| " ()".contains(byte)) {
        let generated = word
            .strip_prefix('g')
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
        if generated && !names.iter().any(|name| name == word) {
            names.push(word.to_owned());
        }
    }
    names
}

/// A result in which those names count from 0.
fn renamed(result: &str, names: &[String]) -> String {
    let mut text = result.to_owned();
    for (number, name) in names.iter().enumerate() {
        text = text.replace(&format!(" {name})"), &format!(" <{number}>)"));
    }
    text
}

fn setup(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/routing");
    let path = path.join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The host of the recordings, with its databases as text or compiled.
fn recorded(compiled: bool) -> Host {
    let mut host = Host {
        passwd: setup("setup/passwd").replace("$ROOT", ROOT),
        group: setup("setup/group"),
        ..Host::default()
    };
    let databases = [
        ("aliases", Syntax::Aliases),
        ("fqdnaliases", Syntax::Aliases),
        ("routes", Syntax::Keyed),
        ("localnames", Syntax::Keyed),
    ];
    for (name, syntax) in databases {
        let content = setup(&format!("setup/{name}")).replace("$ROOT", ROOT);
        let path = format!("{ROOT}/var/db/{name}");
        host.put(&path, 0o644, 0, &content);
        if compiled {
            let mut parsed = Parsed::read(content.as_bytes(), syntax);
            for entry in &mut parsed.entries {
                entry.key.to_mut().make_ascii_lowercase();
            }
            host.put(&format!("{path}.cdb"), 0o644, 0, "");
            let file = host.files.get_mut(&format!("{path}.cdb")).unwrap();
            file.content = parsed.compile().unwrap();
            // What is looked up cannot come from the text.
            host.files.get_mut(&path).unwrap().content.clear();
        }
    }
    let lists = format!("{ROOT}/var/lists");
    host.put(
        &format!("{lists}/mylist"),
        0o664,
        0,
        &setup("setup/lists/mylist"),
    );
    host.files.get_mut(&lists).unwrap().mode = DIRECTORY | 0o2775;
    host.put(
        &format!("{ROOT}/var/mail.conf"),
        0o644,
        0,
        &setup("setup/mail.conf"),
    );
    host.put(
        &format!("{ROOT}/incl/members"),
        0o644,
        0,
        &setup("setup/members"),
    );
    host.put(
        &format!("{ROOT}/{HOMES}/dave/.forward"),
        0o644,
        2003,
        &setup("setup/forward-dave"),
    );
    host
}

/// Result and attribute lists of a row, as ours.
fn routed(host: &Host, scripts: &mut Evaluation, kind: &str, address: &str) -> (String, String) {
    scripts.reset();
    let mut arguments = vec![Value::from(address.replace("$ROOT", ROOT).as_bytes())];
    if kind == "sender" {
        let attributes = ["privilege", "65534", "type", "sender"];
        scripts.set_variable(b"sattr", Value::list(attributes.map(Value::from).into()));
        arguments.push(Value::from("sattr"));
    }
    let result = host.call(scripts, "router", arguments);
    let names = names(&result);
    let lists: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(number, name)| {
            let value = scripts.variable_named(name.as_bytes()).unwrap();
            format!("<{number}>={}", shown(&value))
        })
        .collect();
    (renamed(&result, &names), lists.join(" "))
}

/// Result and attribute lists as a row has them.
fn expected(result: &str, lists: &str) -> (String, String) {
    let names = names(result);
    let mut text = lists.to_owned();
    for (number, name) in names.iter().enumerate() {
        text = text.replace(&format!("{name}="), &format!("<{number}>="));
    }
    let mut rows: Vec<&str> = text.split(" <").filter(|row| !row.is_empty()).collect();
    rows.sort_by_key(|row| {
        row.trim_start_matches('<')
            .split('>')
            .next()
            .map(str::to_owned)
    });
    (renamed(result, &names), rows.join(" <"))
}

fn compare(host: &Host) {
    let mut scripts = host.load(&[]);
    let mut wrong = Vec::new();
    for file in ["reference.tsv", "more.tsv"] {
        for row in setup(file).lines().filter(|row| !row.starts_with('#')) {
            let fields: Vec<&str> = row.split('\t').collect();
            let (kind, address) = (fields[0], fields[1]);
            let want = expected(fields[2], fields.get(4).unwrap_or(&""));
            let got = routed(host, &mut scripts, kind, address);
            let better = BETTER
                .iter()
                .find(|(of, _)| *of == address && kind == "recipient");
            match better {
                None if got != want => {
                    wrong.push(format!("{kind} {address}\n  want {want:?}\n  got  {got:?}"));
                }
                Some((_, why)) if got == want => {
                    wrong.push(format!("{kind} {address} is as in ZMailer, but {why}"));
                }
                _ => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn addresses_go_where_zmailer_sends_them() {
    compare(&recorded(false));
}

#[test]
fn compiled_databases_give_the_same() {
    compare(&recorded(true));
}

/// Address and result.
type Row = (&'static str, &'static str);

fn check(host: &Host, variables: &[(&str, Setting)], rows: &[Row]) {
    let mut scripts = host.load(variables);
    for (address, want) in rows {
        let (got, _) = routed(host, &mut scripts, "recipient", address);
        assert_eq!(got, *want, "{address}");
    }
}

fn small(files: &[(&str, &str)]) -> Host {
    let mut host = Host {
        passwd: setup("setup/passwd").replace("$ROOT", ROOT),
        group: setup("setup/group"),
        ..Host::default()
    };
    for (name, content) in files {
        host.put(&format!("{ROOT}/var/{name}"), 0o644, 0, content);
    }
    host
}

#[test]
fn without_any_file_mail_goes_to_users_and_by_mx() {
    let rows = [
        (
            "joe",
            "(((local joe joe@mta.example.org default_attributes)))",
        ),
        (
            "joe@mta.example.org",
            "(((local joe@mta.example.org joe@mta.example.org default_attributes)))",
        ),
        (
            "nosuch@MTA.example.org",
            "(((error nosuchuser nosuch@mta.example.org default_attributes)))",
        ),
        (
            "bob@far.example.com",
            "(((smtp far.example.com bob@far.example.com default_attributes)))",
        ),
        (
            "bob@example.org",
            "(((smtp example.org bob@example.org default_attributes)))",
        ),
    ];
    check(&small(&[]), &[], &rows);
}

#[test]
fn a_routes_and_an_aliases_file_are_enough() {
    let routes = "# ours\nexample.com smtp!relay.example.net\n.example.com\tsmtp![192.0.2.1]\n\
                  closed.example.net error!closed!not any more\n";
    let aliases = "postmaster: joe\nteam: ann,\n  bob@example.com\nall: :include:$ROOT/members\n";
    let mut host = small(&[("routes", routes), ("aliases", aliases)]);
    host.put(
        &format!("{ROOT}/members"),
        0o644,
        0,
        "joe\n# nobody else\n\"|/usr/bin/log x\"\n",
    );
    let rows = [
        (
            "bob@Example.COM",
            "(((smtp relay.example.net bob@Example.COM default_attributes)))",
        ),
        (
            "bob@a.b.example.com",
            "(((smtp [192.0.2.1] bob@a.b.example.com default_attributes)))",
        ),
        (
            "bob@closed.example.net",
            "(((error closed 'not any more' default_attributes)))",
        ),
        (
            "Postmaster",
            "(((local Postmaster joe@mta.example.org <0>)))",
        ),
        (
            "team@mta.example.org",
            "(((local team@mta.example.org ann@mta.example.org <0>)) ((smtp relay.example.net bob@example.com <0>)))",
        ),
        (
            "all",
            "(((local all joe@mta.example.org <0>)) ((local pipe.all '\"|/usr/bin/log x\"' <1>)))",
        ),
    ];
    check(&host, &[], &rows);
}

#[test]
fn settings_are_obeyed() {
    let variables = [
        ("default_route", text("smtp!smart.example.net:587")),
        ("local_domains", list(&["example.org", ".virt.example"])),
        ("ROUTEUSER_IN_ABNORMAL_UNIX", text("1")),
    ];
    let rows = [
        (
            "any@example.org",
            "(((local any@example.org any@example.org default_attributes)))",
        ),
        (
            "any@a.virt.example",
            "(((local any@a.virt.example any@a.virt.example default_attributes)))",
        ),
        (
            "any@virt.example",
            "(((local any@virt.example any@virt.example default_attributes)))",
        ),
        (
            "bob@far.example.com",
            "(((smtp smart.example.net:587 bob@far.example.com default_attributes)))",
        ),
        (
            "bob@intranet",
            "(((smtp smart.example.net:587 bob@intranet default_attributes)))",
        ),
        (
            "bob@[192.0.2.7]",
            "(((smtp [192.0.2.7] bob@[192.0.2.7] default_attributes)))",
        ),
    ];
    check(&small(&[]), &variables, &rows);
}
