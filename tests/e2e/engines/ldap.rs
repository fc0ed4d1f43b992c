//! LDAP, with a server of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use zmailer::router::relation::Engine;

use super::tls::{Certificates, PASSWORD};
use super::{Asker, HOSTILE, Server, run, secret};
use crate::harness::daemon::{free_address, scratch_dir};
use crate::harness::installed;

const SLAPD: &str = "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
    include /etc/ldap/schema/inetorgperson.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n";

const DATABASE: &str =
    "database mdb\nsuffix \"o=x\"\nrootdn \"cn=admin,o=x\"\nrootpw tell-nobody\n";

const ENTRIES: &str = "dn: o=x\nobjectClass: organization\no: x\n\n\
    dn: uid=joe,o=x\nobjectClass: inetOrgPerson\nuid: joe\ncn: Joe\nsn: X\nmail: joe@host\n\n\
    dn: uid=team,o=x\nobjectClass: inetOrgPerson\nuid: team\ncn: T\nsn: T\nmail: a@x\nmail: b@y\n\n\
    dn: uid=none,o=x\nobjectClass: inetOrgPerson\nuid: none\ncn: N\nsn: N\n\n";

const SEARCH: &str = "base o=x\nfilter (&(objectClass=person)(uid=%s))\nattr mail\nscope sub\n";

fn here() -> bool {
    installed("slapd") && installed("slapadd")
}

/// Writes the server's settings, with further ones of all databases, and its entries.
fn prepare(dir: &Path, words: &str) {
    fs::create_dir(dir.join("data")).unwrap();
    let place = dir.display();
    let files = format!("directory {place}/data\npidfile {place}/pid\n");
    let conf = dir.join("slapd.conf");
    fs::write(&conf, format!("{SLAPD}{words}{DATABASE}{files}")).unwrap();
    run(
        Command::new("/usr/sbin/slapadd").arg("-f").arg(&conf),
        ENTRIES,
    );
}

/// The last of the URIs is the one that is waited for.
fn serve(dir: &Path, uris: &str) -> Server {
    let (_, address) = uris.rsplit_once("//").unwrap();
    let mut command = Command::new("/usr/sbin/slapd");
    let command = command
        .args(["-d", "0", "-h", uris, "-f"])
        .arg(dir.join("slapd.conf"));
    Server::start(command, address.parse().unwrap())
}

#[test]
fn ldap() {
    if !here() {
        return;
    }
    let dir = scratch_dir();
    prepare(dir.path(), "");
    let address = free_address();
    let serve = || serve(dir.path(), &format!("ldap://{address}"));
    let server = serve();
    let settings = format!(
        "# as ZMailer has it\nldaphost\t127.0.0.1\nldapport {}\nprotocol 3\n\
         binddn cn=admin,o=x\npasswd {PASSWORD}\n{SEARCH}",
        address.port()
    );
    let asker = Asker::new(Engine::Ldap, &dir, &settings);
    asker.check(HOSTILE);
    asker.check(&[
        ("", "team", "a@x, b@y"),
        ("", "none", "-"),
        ("", "JOE", "joe@host"),
    ]);
    assert_eq!(asker.ask("", b"\xff"), "-");
    // The file counts as it is at the question.
    let rows = [
        (settings.replace(PASSWORD, "wrong"), "later"),
        // It has no certificate.
        (format!("{settings}start_tls yes\n"), "later"),
        (format!("{settings}sasl_mech PLAIN\n"), "later"),
        (settings.replace("base o=x", "base o=nowhere"), "-"),
        (format!("{settings}start_tls no\n"), "joe@host"),
    ];
    for (settings, wanted) in rows {
        asker.set(&settings);
        asker.check(&[("", "joe", wanted)]);
    }
    asker.set(&settings);
    asker.check_outage(server, serve);
    assert!(!asker.log.text().contains(PASSWORD));
}

#[test]
fn ldap_encrypted() {
    if !here() || !installed("openssl") {
        return;
    }
    let dir = scratch_dir();
    let certificates = Certificates::new(dir.path(), |program| Command::new(program));
    // Only what is encrypted may say who it is.
    let words = format!(
        "TLSCACertificateFile {}\nTLSCertificateFile {}\nTLSCertificateKeyFile {}\nsecurity simple_bind=128\n",
        certificates.path("ca.pem"),
        certificates.path("server.pem"),
        certificates.path("server.key")
    );
    prepare(dir.path(), &words);
    let (plain, encrypted) = (free_address(), free_address());
    let uris = format!("ldaps://{encrypted} ldap://{plain}");
    let server = serve(dir.path(), &uris);
    let file = secret(dir.path(), PASSWORD);
    let who = format!("binddn cn=admin,o=x\npasswd_file {}\n", file.display());
    let by_port = format!("uri ldaps://localhost:{}\n{who}{SEARCH}", encrypted.port());
    let by_word = format!(
        "uri ldap://localhost:{}\nstart_tls yes\n{who}{SEARCH}",
        plain.port()
    );
    let asker = Asker::new(Engine::Ldap, &dir, &by_port);
    certificates.check(&asker, &by_port);
    certificates.check(&asker, &by_word);
    asker.check_outage(server, || serve(dir.path(), &uris));
    asker.set(&by_word.replace("start_tls yes\n", ""));
    asker.check(&[("", "joe", "later")]);
}
