//! What `--help` says behind the options: files, exit codes, examples. Texts only.

/// The files a command that talks to the daemon uses.
macro_rules! files {
    () => {
        "PROGRAMS AND FILES:
  |program and /file in aliases, lists and .forward are used by a process beside the daemon, the mailbox
  agent, which keeps root's rights: each with the rights of the file that names it, root's as [transport.program] user.
  Not started as root, the daemon uses its own rights, and what needs others waits

FILES:
  /etc/zmailer/zmailer.toml   the settings, unless --config or $ZMAILER_CONFIG names others
  POSTOFFICE/control.sock     where the daemon answers; root and the daemon's user may ask

"
    };
}

/// The exit codes all such commands share.
macro_rules! exits {
    ($($more:literal)*) => {
        concat!(
            "EXIT STATUS:
  0    done
  64   wrong arguments
  69   no daemon answers, or something needed is not there
", $($more,)* "  78   the settings are wrong; every mistake is named

"
        )
    };
}

pub(super) const ZMAILER: &str = "\
FILES:
  /etc/zmailer/zmailer.toml   the settings; a command takes --config FILE, then $ZMAILER_CONFIG, then
                              this file, then built-in settings that listen on 127.0.0.1:2525 and keep
                              everything under ./postoffice
  /var/spool/postoffice       usual [paths] postoffice: spool/ the logs, public/ and router/ submission,
                              postman/ reports that nobody took, control.sock
  /var/log/zmailer            usual [paths] log_dir: mail.N.log of shard N, zmailer.log of the daemon

EXIT STATUS:
  0    done
  64   wrong arguments
  65   data that is damaged or in a format of a later version
  69   something needed is not there: no daemon, no io_uring, a port in use
  70   a shard of the daemon has failed
  75   not now: a disk that is full, a daemon that does not answer yet
  78   the settings are wrong; every mistake is named with file, line, key and what is allowed

EXAMPLES:
  zmailer                     start everything in the background, as `zmailer start`
  zmailer check               judge the settings
  zmailer queue list --where 'domain = example.net and age > 1h'
  zmailer help queue hold     what a command does, with its exit codes and an example

Called as `sendmail`, `mailq`, `makedb` or `newaliases` it is that program.";

pub(super) const RUN: &str = "\
The daemon opens its ports, becomes [daemon] user when it was started as root, reads what the spool
holds and serves until it is told to stop. Events go to standard error, mail to the mail log.

SIGNALS:
  TERM, INT   stop in order: no new clients, replies under way are waited for up to 2 s, results are
              written; a second one ends at once. Nothing that was answered with 250 is lost
  HUP         read the settings again and open the mail logs again

FILES:
  /etc/zmailer/zmailer.toml   the settings, unless --config or $ZMAILER_CONFIG names others
  POSTOFFICE/spool/NNNN/      the log of shard N, and large messages
  POSTOFFICE/mailbox.sock     where the mailbox agent listens, for the daemon's user alone
  POSTOFFICE/.pid.zmailer     the lock: one daemon for a postoffice
  LOG_DIR/mail.N.log          two lines a message: accepted, and what became of each recipient

EXIT STATUS:
  0    stopped in order
  64   wrong arguments
  65   the spool was written by a later version
  69   something needed is not there: the postoffice is locked or frozen, a port is in use, io_uring is
       missing or forbidden, RLIMIT_MEMLOCK allows no ring
  70   a shard has failed; a restart recovers (134 when it ended the process)
  78   the settings are wrong; every mistake is named

EXAMPLES:
  zmailer run --config zmailer.toml
  zmailer run 2>>/var/log/zmailer/zmailer.log     under a supervisor; see etc/zmailer.service";

pub(super) const START: &str = concat!(
    "\
The daemon runs on when this command has ended. It is waited for until it answers, 2 minutes at most; a
failed start shows what it said.

FILES:
  LOG_DIR/zmailer.log         what the daemon says
  POSTOFFICE/.freeze          made by `zmailer freeze`: forbids starting

",
    exits!("  75   the daemon has been started and does not answer yet\n"),
    "Other codes are those of `zmailer run`.

EXAMPLES:
  zmailer start
  zmailer start --config /etc/zmailer/second.toml"
);

pub(super) const KILL: &str = concat!(
    "\
The daemon takes no new clients, waits up to 2 s for replies of next hops, writes the results and ends;
this command waits for that, 15 s at most. What was not answered is tried again after the next start.

",
    files!(),
    exits!(),
    "EXAMPLES:
  zmailer stop
  zmailer kill && tar cf spool.tar /var/spool/postoffice"
);

pub(super) const RESTART: &str = concat!(
    "\
The settings are judged before the running daemon is stopped.

",
    files!(),
    exits!("  75   the daemon has been started and does not answer yet\n"),
    "EXAMPLES:
  zmailer restart"
);

pub(super) const FREEZE: &str = concat!(
    "\
A daemon that runs goes on; `zmailer stop` ends it.

FILES:
  POSTOFFICE/.freeze          the flag

",
    exits!(),
    "EXAMPLES:
  zmailer freeze && zmailer stop      nobody starts it again until `zmailer thaw`"
);

pub(super) const THAW: &str = concat!(
    "FILES:
  POSTOFFICE/.freeze          the flag, removed

",
    exits!(),
    "EXAMPLES:
  zmailer thaw && zmailer start"
);

pub(super) const RESUBMIT: &str = "\
A message whose routing was stopped at a limit of the script leaves the queue as a file in deferred/, with the
reason in its envelope. When what was wrong has been put right, it goes back here; with its files go their
owners, and what the envelope says of who brought it. Works while the daemon is down, too.

FILES:
  POSTOFFICE/deferred/ID.NUMBER   the message, its envelope in front
  POSTOFFICE/router/              where the daemon takes it from

EXIT STATUS:
  0    every message is in router/; their names are printed
  64   wrong arguments
  66   there is no such message in deferred/; the others have been moved
  69   there is no deferred/
  74   a file cannot be moved
  77   the directories are not this user's
  78   the settings are wrong; every mistake is named

EXAMPLES:
  zmailer resubmit
  zmailer resubmit 000GcPyOtviJtKHIZfSK1Z";

pub(super) const RELOAD: &str = concat!(
    "\
Routes, limits of sessions, trusted networks and scheduler rules change at once, for new sessions and new
messages. Paths, shards, the spool and listeners need a restart; a change of those is refused, and then
nothing changes. Mail logs are opened again under their names either way, for log rotation.

",
    files!(),
    exits!(),
    "EXAMPLES:
  zmailer check && zmailer reload
  mv mail.0.log mail.0.log.1; zmailer reload      SIGHUP does the same"
);

pub(super) const STATUS: &str = concat!(
    "\
Counts are those of the moment (sessions, queue, spool) or since the start (mail, commits). --json prints
one object: version, uptime_s, subsystems, queue (messages, recipients, bytes, by_channel), spool, mail,
sessions, shards.

",
    files!(),
    exits!(),
    "EXAMPLES:
  zmailer status
  zmailer status --json | jq .queue.by_channel"
);

pub(super) const ROUTE: &str = "\
Loads the routing configuration as the daemon would and asks it about each address; nothing is sent. Without
addresses it reads one a line. A result is channel, host and user. With --diff it loads two scripts with the same
settings and prints addresses whose result differs, both results, and the count.

FILES:
  /etc/zmailer/zmailer.toml   the settings, unless --config or $ZMAILER_CONFIG names others
  [router] config             the script; without one the shipped scripts
  [router] directory          aliases, routes and what else the scripts read

EXIT STATUS:
  0    every address has a route; --diff: no address differs
  1    --diff: an address differs
  64   wrong arguments
  67   an address has a result on channel error
  75   none has, but one on channel hold, or the script was stopped at a limit
  78   the settings or the scripts are wrong; every mistake is named

EXAMPLES:
  zmailer route joe@example.org
  zmailer route --explain --from ann@example.net joe@example.org
  zmailer route --tsv < addresses > results
  zmailer route --diff /etc/zmailer/router.cf new.cf < addresses
  zmailer route --diff stock new.cf joe@example.org";

pub(super) const ZMSH: &str = "\
Runs a script file, or the standard input. On a terminal without a file it reads commands, with a history; a
command that is not complete goes on in the next line. Ctrl-C ends the command that runs, Ctrl-D the session.
A function or variable PS1 is the prompt, PS2 that of a continuation. The language is described in
src/router/LANGUAGE.md.

FILES:
  ~/.zmsh_history             what was typed
  [router] config             with --routing: loaded before the script, as the daemon does

EXIT STATUS:
  as the script says; 65 when it cannot be understood, 66 when it cannot be read, 75 when it was stopped at a
  limit, 78 when the routing configuration is wrong

EXAMPLES:
  zmailer zmsh script.cf one two
  zmailer zmsh --routing                  then: router joe@example.org";

pub(super) const CHECK: &str = "\
Judges the settings as a start would and changes nothing. All mistakes are printed at once, each with
file, line, key and what is allowed. The routing scripts are loaded as the daemon loads them; all their errors
are printed with file, line, column and a hint, and warnings about what can hardly be meant: commands that do
not exist, wrong numbers of arguments, what is never reached.

FILES:
  /etc/zmailer/zmailer.toml   the settings, unless --config or $ZMAILER_CONFIG names others
  [router] config             the routing script

EXIT STATUS:
  0    the settings are good; there may be warnings
  64   wrong arguments
  78   the settings are wrong

EXAMPLES:
  zmailer check --config new.toml
  zmailer check --reference > zmailer.toml        every setting with its default and meaning";

pub(super) const DEMO: &str = "\
Starts a daemon, a sink and a source, sends messages through and compares what was acknowledged with what
arrived: a ledger. Prints rate, latency, flushes a message. --json prints one object: messages,
acknowledged, delivered, lost, duplicated, altered, rate_per_second, latency_us, commits_per_message,
flushes_per_message, file_system, flush_us.

FILES:
  DIR/demo.PID/               everything, removed at the end

EXIT STATUS:
  0    every message arrived once, unaltered
  1    a message was lost, duplicated or altered
  64   wrong arguments
  69   the demo could not run

EXAMPLES:
  zmailer demo
  zmailer demo --messages 100000 --size 1024 --connections 200 --dir /var/tmp";

pub(super) const TRACE: &str = concat!(
    "\
Told from the mail logs (also rotated ones, LOG_DIR/mail.*) and the queue: when it came and from whom,
each attempt for each recipient with next hop and reply, what still waits, why and until when. An address
stands for the messages it sent or was to receive, 100 at most.

FILES:
  LOG_DIR/mail.N.log          the mail log of shard N
  POSTOFFICE/control.sock     where the daemon answers

",
    exits!(),
    "A message that neither logs nor queue know is 69 too.

EXAMPLES:
  zmailer trace 1fSoTDMVHcUu4Ewv
  zmailer trace bob@example.net"
);

pub(super) const QUEUE: &str = concat!(
    "\
Acts concern recipients, by any key. Those that are being delivered at the moment are left alone. What is
done is written to the spool and survives a restart.

",
    files!(),
    exits!("  77   not allowed to this user\n"),
    "EXAMPLES:
  zmailer queue list
  zmailer queue hold --where 'sender ~ *@list.example' --dry-run     what it would concern, and then ...
  zmailer queue hold --where 'sender ~ *@list.example'     ... exactly that, for ten minutes
  zmailer help queue retry"
);

/// What all acts of `queue` share.
macro_rules! act {
    ($text:literal, $examples:literal) => {
        concat!(
            $text,
            "
EXPRESSIONS:
  id, sender, recipient, domain, channel, host, destination, state   with  =  !=  ~  !~
                              text; ~ takes * and ?. destination is channel/host; state is waiting,
                              deferred, delivering or held
  age, size, attempts         with  <  <=  >  >=  =  !=   numbers: 90s 5m 2h 1d, 10KiB 1MiB, 3
  and, or, not, ( )           text with blanks in double quotes; '' is every recipient

",
            files!(),
            exits!("  77   not allowed to this user\n"),
            "EXAMPLES:\n",
            $examples
        )
    };
}

pub(super) const QUEUE_LIST: &str = act!(
    "Messages with their recipients: age, size, sender, state, attempts, last reply, next attempt. conf= is the\n\
     configuration that routed the message last, as in the mail log; none: not routed since the start.\n",
    "  zmailer queue list --where 'domain = example.net' --limit 20
  zmailer queue list --json --where 'attempts > 3'"
);

pub(super) const QUEUE_COUNT: &str = act!(
    "Counts messages, recipients and bytes.\n",
    "  zmailer queue count --where 'state = held'"
);

pub(super) const QUEUE_RETRY: &str = act!(
    "Tries now, also next hops that are waited for. Held recipients stay held.\n",
    "  zmailer queue retry --where 'host = mx.example.net'
  zmailer queue retry --where ''                    everybody"
);

pub(super) const QUEUE_HOLD: &str = act!(
    "Keeps recipients until they are released; no attempts, no expiry.\n",
    "  zmailer queue hold --where 'sender = spam@example.net' --dry-run"
);

pub(super) const QUEUE_RELEASE: &str = act!(
    "Lets go what is held: it is routed and tried at once.\n",
    "  zmailer queue release --where 'state = held and domain = example.net'"
);

pub(super) const QUEUE_DELETE: &str = act!(
    "Drops recipients; the sender hears nothing of it. The mail log does.\n",
    "  zmailer queue delete --where 'id = 1fSoTDMVHcUu4Ewv'"
);

pub(super) const QUEUE_BOUNCE: &str = act!(
    "Gives up recipients with a report to the sender (RFC 3464).\n",
    "  zmailer queue bounce --where 'domain = typo.example and age > 1h'"
);

pub(super) const QUEUE_REROUTE: &str = act!(
    "Asks the router again about recipients that wait, with the settings of now. Those that would go where they\n\
     wait anyway stay there; the others go the new way at once. Of a list, who has been delivered or will be is\n\
     left out: nobody gets it twice. Where the router cannot decide now, nothing is changed. With --dry-run it is\n\
     asked as well, and each recipient that would change is named with its old and new way.\n",
    "  zmailer queue reroute --where 'host = old-gateway.example' --dry-run
  zmailer queue reroute --where 'host = old-gateway.example'"
);

pub(super) const MAILQ: &str = concat!(
    "\
Without options: each message with up to five recipients, why they wait and until when. -v shows all
recipients, -Q one line for each destination, -s counts the files of the directories first, -ss nothing
else, and then needs no daemon.

FILES:
  POSTOFFICE/control.sock     where the daemon answers
  POSTOFFICE/router/ ...      directories that -s counts

",
    exits!("  77   not allowed to this user\n"),
    "EXAMPLES:
  mailq
  mailq -Q -c smtp
  zmailer mailq -ss"
);

/// The files of commands that read the spool themselves.
macro_rules! spool_files {
    () => {
        "FILES:
  POSTOFFICE/spool/NNNN/      the log of shard N: log.SEGMENT, and a file for each large message

"
    };
}

/// Their exit codes.
macro_rules! spool_exits {
    ($($more:literal)*) => {
        concat!(
            "EXIT STATUS:
  0    done
  64   wrong arguments
  65   the content, or the format of the spool, is damaged or of a later version
  69   there is no such message, or no spool
", $($more,)* "  78   the settings are wrong; every mistake is named

"
        )
    };
}

pub(super) const SPOOL: &str = concat!(
    "\
Looking needs no daemon and changes nothing; every record is verified. What a running daemon writes at
that moment may be missing.

",
    spool_files!(),
    spool_exits!(),
    "EXAMPLES:
  zmailer spool ls
  zmailer help spool export"
);

pub(super) const SPOOL_LS: &str = concat!(
    spool_files!(),
    spool_exits!(),
    "EXAMPLES:
  zmailer spool ls | wc -l"
);

pub(super) const SPOOL_CAT: &str = concat!(
    spool_files!(),
    spool_exits!("  74   standard output cannot be written\n"),
    "EXAMPLES:
  zmailer spool cat 1fSoTDMVHcUu4Ewv | less"
);

pub(super) const SPOOL_EXPORT: &str = concat!(
    spool_files!(),
    spool_exits!("  73   the file cannot be made\n"),
    "EXAMPLES:
  zmailer spool export 1fSoTDMVHcUu4Ewv kept.msg
  zmailer queue delete --where 'id = 1fSoTDMVHcUu4Ewv'"
);

pub(super) const SPOOL_IMPORT: &str = "\
The message is submitted like one of `sendmail`: it is safe when this command ends, also without a daemon.

FILES:
  POSTOFFICE/public/          where it is written
  POSTOFFICE/router/          where the daemon picks it up

EXIT STATUS:
  0    the message is on disk
  64   wrong arguments
  65   the file is no message file
  66   the file cannot be read
  69   there is no postoffice
  75   not now: the disk is full
  77   no right to submit here
  78   the settings are wrong; every mistake is named

EXAMPLES:
  zmailer spool import kept.msg";

pub(super) const SPOOL_CHECK: &str = "\
Reads all segments and large messages and verifies every checksum and every reference. Prints one line for
each damage: directory, segment:offset, what; then one with the sums. It asks no daemon. While one runs it looks
twice and names what is damaged both times; what is written meanwhile it does not see.

FILES:
  POSTOFFICE/spool/NNNN/      the log of shard N

EXIT STATUS:
  0    everything is good
  64   wrong arguments
  65   something is damaged, or of a later version
  69   there is no spool
  74   a file cannot be read
  78   the settings are wrong; every mistake is named

EXAMPLES:
  zmailer spool check
  zmailer spool check --json | jq '.shards[].findings'";

pub(super) const SPOOL_SALVAGE: &str = "\
Writes what can be believed under its id into the new directory, each file with the age of its message and
without the recipients that are finished. What is whole but may be forged or old goes to its doubtful/: look at
it before you import it. Prints what is lost, as far as it has a name, and the sums. Nothing in the spool is
changed. A message whose end was lost with the damage comes out again.

FILES:
  POSTOFFICE/spool/NNNN/           the log of shard N
  POSTOFFICE/spool/NNNN.damaged/   one that was kept

EXIT STATUS:
  0    nothing is damaged, and all of it was written
  64   wrong arguments
  65   something is damaged, doubtful or lost
  69   there is no spool, or a daemon runs and --missing is not given
  73   the directory or a file in it cannot be made
  74   a file of the spool cannot be read
  78   the settings are wrong; every mistake is named

EXAMPLES:
  zmailer spool salvage --missing --to found
  for file in found/*; do [ -f $file ] && zmailer spool import $file; done";

/// Also what `sendmail --help` prints, behind [`SENDMAIL_USAGE`].
pub(super) const SENDMAIL: &str = "\
OPTIONS:
  -t             recipients from To, Cc and Bcc of the header, besides those named
  -f ADDRESS     envelope sender; -f '<>' is the null sender. -r is the same
  -F NAME        full name of the sender, for a From field that is missing
  -i, -oi        a line with a dot alone does not end the message
  -N WORDS       when to report: never, or success,failure,delay (RFC 3461)
  -R full|hdrs   how much of the message a report returns
  -V ENVID       identifier that reports repeat
  -B 7BIT|8BITMIME   body type
  -s             keep a first line that begins with \"From \"
  -E             from outside: what root and the daemon's user may do beyond others is given up
  -p PROTOCOL    how the message came, for the Received line
  -C FILE, --config FILE   the settings
  -bm            submit a message (default)
  -bs            speak SMTP on standard input and output
  -bp            show the queue, as mailq
  -bd            start the daemon, as `zmailer start`
  -q             try now what waits, as `zmailer queue retry`; -qIid, -qRrecipient, -qSsender: some of it
  -v             say where the message is and whether the daemon has taken it
  -m -e -O -o -c -D -J -T -x -U -P -L -X -A -G   accepted for other programs' sake, without meaning
  -h -n -d -M    the same, and said to be ignored
  --             what follows is an address, also with a dash in front

  Without recipients and without -t the header is asked as with -t. Flags end at the first recipient.
  An address that nobody can understand refuses the message for all; so does a header or a message
  above the limits of the daemon. The end of input is the end of the message, whatever became of the
  program that wrote it.

FILES:
  /etc/zmailer/zmailer.toml   the settings, unless -C or $ZMAILER_CONFIG names others
  POSTOFFICE/public/          where the message is written
  POSTOFFICE/router/          where the daemon picks it up

EXIT STATUS:
  0    the message is on disk; a daemon that is down sends it when it is up
  64   wrong arguments, or a recipient among them that is no address
  65   no recipients in the header or one that is no address, or the message is too large
  69   there is no postoffice; with -q, no daemon answers
  73   no right to submit here, or a limit of this process
  74   standard input cannot be read
  75   not now: the disk is full
  77   with -q: not allowed to this user
  78   the settings are wrong; every mistake is named

EXAMPLES:
  printf 'Subject: hello\\n\\ntext\\n' | sendmail bob@example.net
  sendmail -t -i -f ann@example.org < letter";

/// What `sendmail --help` prints first.
pub(super) const SENDMAIL_USAGE: &str = "\
Submit a message from standard input. It needs no privilege and no running daemon.

Usage: sendmail [OPTIONS] [--] [ADDRESS]...
";
