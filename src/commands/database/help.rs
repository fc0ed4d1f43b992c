//! What `--help` says of the database tools. Texts only.

/// Exit codes of all three.
macro_rules! exits {
    () => {
        "EXIT STATUS:
  0    the map is in place
  64   wrong arguments
  65   the source has errors; every one is named with file, line and column; the old map stays
  66   the source cannot be read
  73   the map cannot be made
  75   another process is making the same map
  77   not allowed
  78   the configuration, dbases.conf or $DBTYPE is wrong

"
    };
}

pub(in crate::commands) const MAKEDB: &str = concat!(
    "\
Reads `key value` lines, or with -a `name: value, value` with continuation lines that begin with a
blank; # begins a comment line. Of a key that comes twice the first one counts and the second one is
reported, unless -A joins them. The map gets owner and mode of its source.

FILES:
  BASE.cdb    the map (ndbm and dbm: .pag, gdbm: .gdbm, btree: .db, bhash: .dbh), replaced as a whole;
              the format is that of cdb, whatever the type is called; less than 4 GiB

",
    exits!(),
    "EXAMPLES:
  makedb -l cdb /etc/zmailer/db/routes /etc/zmailer/db/routes
  generate | makedb -al cdb /etc/zmailer/db/fqdnaliases"
);

pub(in crate::commands) const NEWALIASES: &str = concat!(
    "\
Compiles aliases, and FILE.private behind it if there is one. Both must belong to the same account: the
programs and files that aliases name run and are written with its rights.

FILES:
  MAILVAR/db/aliases, MAILVAR/aliases    the source, the first that exists; MAILVAR is
                                         router.directory of --config FILE, else
                                         $MAILVAR, else router.directory of the
                                         configuration that the daemon reads
  FILE.cdb                               the map ($DBTYPE may choose another type of makedb)

",
    exits!(),
    "EXAMPLES:
  newaliases
  newaliases /srv/lists/aliases"
);

pub(in crate::commands) const NEWDB: &str = concat!(
    "\
Compiles every source of a relation, or of all relations, and writes the script that defines it. A
relation with an error in one of its sources stays as it was. Definitions that have changed need
`zmailer reload`; maps alone do not.

FILES:
  MAILVAR/db/dbases.conf      lines of: relation type rights compile file flags
  MAILVAR/db/RELATION.zmsh    the definition, read by the routing scripts

",
    exits!(),
    "EXAMPLES:
  zmailer newdb
  zmailer newdb routesdb"
);
