//! What relations look things up in, and the drivers, by their names.

/// What a relation looks things up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Filled by the script.
    Incore,
    /// Filled by the script; names of header fields and what they mean.
    Header,
    /// A text file, in any order.
    Unordered,
    /// A text file, sorted.
    Ordered,
    /// A text file of keys, each with all that follows it on its line, as `makedb` compiles it.
    Keyed,
    /// A text file of aliases, as `newaliases` compiles it.
    Aliases,
    /// A file like `/etc/hosts`.
    HostsFile,
    /// A compiled file; with the extension of its name.
    Compiled(&'static str),
    /// A text file of patterns.
    Regex,
    /// A text file of networks.
    Cidr,
    /// Name servers.
    Bind,
    /// The addresses of this host.
    SelfMatch,
    /// A server or library that is asked.
    Engine(Engine),
}

/// Databases of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    /// SQLite, a file.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// LDAP.
    Ldap,
    /// Redis or Valkey.
    Redis,
}

/// What is asked of name servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Whether there is anything; an alias gives its target.
    Any,
    /// Canonical name.
    Cname,
    /// Exchangers, best first.
    Mx,
    /// The name when this host is its best exchanger.
    MxLocal,
    /// As `mx`: well-known services are not published any more (RFC 1123 5.3.4 forbids to ask for them).
    MxWks,
    /// Name of an address.
    Ptr,
    /// First text.
    Txt,
    /// As `txt`.
    Uinfo,
    /// The name itself.
    Wks,
}

/// Words of `-t bind,WORD`.
pub(super) const RECORDS: &[(&str, Record)] = &[
    ("a", Record::A),
    ("aaaa", Record::Aaaa),
    ("any", Record::Any),
    ("cname", Record::Cname),
    ("mx", Record::Mx),
    ("mxlocal", Record::MxLocal),
    ("mxwks", Record::MxWks),
    ("ptr", Record::Ptr),
    ("txt", Record::Txt),
    ("uinfo", Record::Uinfo),
    ("wks", Record::Wks),
];

impl Record {
    /// By its name, in any case.
    #[must_use]
    pub fn parse(word: &[u8]) -> Option<Self> {
        let row = RECORDS
            .iter()
            .find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()));
        row.map(|(_, record)| *record)
    }

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        let row = RECORDS.iter().find(|(_, record)| *record == self);
        row.map_or("", |(name, _)| name)
    }
}

/// Types by name. The names of ZMailer's libraries all mean the compiled file of this program, each with
/// the extension that belongs to it.
pub(super) const KINDS: &[(&str, Kind)] = &[
    ("incore", Kind::Incore),
    ("header", Kind::Header),
    ("unordered", Kind::Unordered),
    ("ordered", Kind::Ordered),
    ("aliases", Kind::Aliases),
    ("keyed", Kind::Keyed),
    ("hostsfile", Kind::HostsFile),
    ("bind", Kind::Bind),
    ("selfmatch", Kind::SelfMatch),
    ("cdb", Kind::Compiled("cdb")),
    ("ndbm", Kind::Compiled("pag")),
    ("gdbm", Kind::Compiled("gdbm")),
    ("dbm", Kind::Compiled("pag")),
    ("btree", Kind::Compiled("db")),
    ("bhash", Kind::Compiled("dbh")),
    ("regex", Kind::Regex),
    ("cidr", Kind::Cidr),
    #[cfg(feature = "sqlite")]
    ("sqlite", Kind::Engine(Engine::Sqlite)),
    #[cfg(feature = "postgres")]
    ("postgres", Kind::Engine(Engine::Postgres)),
    #[cfg(feature = "ldap")]
    ("ldap", Kind::Engine(Engine::Ldap)),
    #[cfg(feature = "redis")]
    ("redis", Kind::Engine(Engine::Redis)),
];

/// Types that a build may be without.
pub(super) const OPTIONAL: &[&str] = &["sqlite", "postgres", "ldap", "redis"];

impl Kind {
    /// Extension of compiled files when nothing says otherwise.
    pub const COMPILED: &str = "cdb";

    /// By its name.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        let row = KINDS.iter().find(|(known, _)| known.as_bytes() == name);
        row.map(|(_, kind)| *kind)
    }

    /// A name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        let row = KINDS.iter().find(|(_, kind)| *kind == self);
        row.map_or("", |(name, _)| name)
    }

    /// A table of the script.
    #[must_use]
    pub fn is_table(self) -> bool {
        matches!(self, Self::Incore | Self::Header)
    }

    /// Answered from outside, look-up by look-up.
    #[must_use]
    pub fn is_asked(self) -> bool {
        matches!(self, Self::Bind | Self::SelfMatch | Self::Engine(_))
    }

    /// Text files with a key and a value on each line.
    #[must_use]
    pub fn is_lines(self) -> bool {
        matches!(self, Self::Unordered | Self::Ordered)
    }

    pub(super) fn default_file(self) -> &'static [u8] {
        match self {
            Self::HostsFile => b"/etc/hosts",
            _ => b"",
        }
    }

    /// Entries that are remembered when `-s` does not say. Only answers from outside are remembered at
    /// all; the number is shown by `db toc`.
    pub(super) fn default_cache(self) -> usize {
        match self {
            Self::Unordered => 10,
            _ => 0,
        }
    }
}

/// Which keys are tried for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `a.b`, `.a.b`, `.b`, `.`.
    Pathalias,
    /// Parent domains without a dot, never the name itself.
    PathaliasNodot,
    /// `user@dom`, then `dom` as [`Driver::Pathalias`] has it; `user@` and then `@LOCAL@`.
    PathaliasAt,
    /// `a.b`, `.b`, `.`; an address with ever shorter prefixes.
    LongestMatch,
}

pub(super) const DRIVERS: &[(&str, Driver, &str)] = &[
    ("pathalias", Driver::Pathalias, "{pa.}"),
    ("pathalias.nodot", Driver::PathaliasNodot, "{pa}"),
    ("pathalias.at", Driver::PathaliasAt, "{pa.at}"),
    ("longestmatch", Driver::LongestMatch, "{lm}"),
];
