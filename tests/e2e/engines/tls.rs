//! Certificates made for a test, and what every database has to say about bad ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Asker, run};

/// Files of two authorities and of servers; `as_user` runs a program as who is to own them.
pub(super) struct Certificates {
    dir: PathBuf,
}

const KEY: &[&str] = &[
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
];

impl Certificates {
    /// `ca.pem` has signed `server.pem`, for `localhost` only, and `client.pem`; `other.pem` nobody but itself.
    pub(super) fn new(dir: &Path, as_user: impl Fn(&Path) -> Command) -> Self {
        fs::write(dir.join("names"), "subjectAltName=DNS:localhost\n").unwrap();
        let openssl = |words: &[&str]| {
            let mut command = as_user(Path::new("openssl"));
            run(command.current_dir(dir).args(words), "");
        };
        for authority in ["ca", "other"] {
            let (pem, key) = (format!("{authority}.pem"), format!("{authority}.key"));
            let subject = format!("/CN=Authority {authority}");
            let files = ["-out", &pem, "-keyout", &key, "-subj", &subject];
            let words = [&["req", "-x509", "-days", "2"], KEY, &files].concat();
            openssl(&words);
        }
        for name in ["server", "client"] {
            let (pem, key) = (format!("{name}.pem"), format!("{name}.key"));
            let request = format!("{name}.csr");
            let files = ["-out", &request, "-keyout", &key, "-subj", "/CN=mail"];
            openssl(&[&["req"], KEY, &files].concat());
            let by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
            let files = ["-in", &request, "-out", &pem, "-extfile", "names"];
            let words = [&["x509", "-req", "-days", "2"][..], &by, &files].concat();
            openssl(&words);
        }
        Self {
            dir: dir.to_owned(),
        }
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// `settings` asks for the host `localhost`, with encryption and without a word about certificates.
    pub(super) fn check(&self, asker: &Asker, settings: &str) {
        let (ours, other) = (self.path("ca.pem"), self.path("other.pem"));
        let by_address = settings.replace("localhost", "127.0.0.1");
        let rows = [
            (settings.to_owned(), "later", "tls_ca FILE names who is"),
            (
                format!("{by_address}tls_ca {ours}\n"),
                "later",
                "connect by a name that the certificate has",
            ),
            (
                format!("{settings}tls_ca {other}\n"),
                "later",
                "tls_ca FILE",
            ),
            (
                format!("{settings}tls_ca /nosuch\n"),
                "later",
                "tls_ca /nosuch",
            ),
            (
                format!("{settings}tls_cert {ours}\n"),
                "later",
                "of tls_cert and tls_key one is missing",
            ),
            (
                format!("{settings}tls_verify maybe\n"),
                "later",
                "tls_verify is",
            ),
            (format!("{by_address}tls_verify no\n"), "joe@host", ""),
            (format!("{settings}tls_ca {ours}\n"), "joe@host", ""),
        ];
        // A problem that is the one before is not logged again.
        for (settings, wanted, told) in rows {
            asker.set(&settings);
            let before = asker.log.text().len();
            let said = asker.ask("", b"joe");
            let log = asker.log.text().split_off(before);
            assert_eq!(said, wanted, "{settings}{log}");
            assert!(log.contains(told), "{settings}{log}");
        }
        asker.check(super::HOSTILE);
        assert!(!asker.log.text().contains(PASSWORD), "{}", asker.log.text());
    }
}

/// Of every server that wants one.
pub(super) const PASSWORD: &str = "tell-nobody";
