//! The built-in commands: one table, from which the manual's table is made too.

mod account;
mod address;
mod expand;
mod file;
mod list;
mod relation;
mod shell;
mod srs;
mod test;
mod text;
mod variable;

use super::machine::{Arguments, Evaluation};

pub use super::machine::Flow;
pub(super) use relation::effect;

/// A built-in command.
pub struct Builtin {
    /// Its name.
    pub name: &'static str,
    /// Arguments, for people.
    pub usage: &'static str,
    /// What it does, in a sentence.
    pub text: &'static str,
    /// Does it.
    pub(in crate::router) run: fn(&mut Evaluation, Arguments) -> Flow,
}

/// A built-in by name.
pub(super) fn find(name: &[u8]) -> Option<&'static Builtin> {
    TABLE.iter().find(|builtin| builtin.name.as_bytes() == name)
}

/// `EX_USAGE`: a built-in was called in the wrong way.
const USAGE: i32 = 64;

macro_rules! table {
    ($($name:literal $usage:literal $text:literal $run:path;)*) => {
        /// All of them, by topic.
        pub static TABLE: &[Builtin] = &[
            $(Builtin { name: $name, usage: $usage, text: $text, run: $run },)*
        ];
    };
}

table! {
    "car" "LIST" "The first element; of a text, the text." list::first;
    "first" "LIST" "The same as car." list::first;
    "cdr" "LIST" "The list without its first element." list::rest;
    "rest" "LIST" "The same as cdr." list::rest;
    "last" "LIST" "A list of the last element." list::last;
    "list" "VALUE..." "A list of the arguments." list::list;
    "length" "LIST" "Number of elements; 0 for a text." list::length;
    "elements" "LIST" "The elements as arguments of their own." list::elements;
    "get" "VARIABLE KEY" "The value of a key in the property list that is the variable's value; a key that is not there is added with nil." list::get;
    "lappend" "VARIABLE VALUE..." "Appends to the list that is the variable's value; the elements of a list one by one." list::append;
    "lreplace" "VARIABLE INDEX|KEY VALUE" "Replaces an element by its index from 0, or the value of a key; appends what is not there." list::replace;
    "grind" "VALUE..." "Its arguments in list notation." list::grind;
    "ifssplit" "TEXT" "The parts of a text between the separators in IFS." list::split;
    "channel" "QUAD" "The first element." list::channel;
    "host" "QUAD" "The second element." list::host;
    "user" "QUAD" "The third element." list::user;
    "attributes" "QUAD" "The fourth element." list::attributes;

    ":" "" "Succeeds." shell::succeed;
    "true" "" "Succeeds." shell::succeed;
    "false" "" "Fails." shell::fail;
    "[" "EXPRESSION ]" "The same as test." test::bracket;
    "test" "EXPRESSION" "Whether an expression about files, texts or numbers is true." test::test;
    "echo" "[-n] [--] WORD..." "Writes its arguments." shell::echo;
    "read" "VARIABLE..." "Reads a line; each variable takes a word, the last one the rest." variable::read;
    "eval" "WORD..." "Runs its arguments as a script." shell::eval;
    "." "FILE" "Runs a script file." file::source;
    "builtin" "COMMAND WORD..." "Runs a built-in or program although a function has its name." shell::builtin;
    "type" "NAME..." "What a name runs." shell::kind;
    "hash" "[-r] [NAME...]" "Nothing: programs are looked up each time." shell::hash;
    "return" "[STATUS|VALUE...]" "Ends a function with a status when the argument is all digits, else with a value." shell::return_;
    "returns" "VALUE..." "Ends a function with a value." shell::returns;
    "break" "[LEVELS]" "Ends a loop or sift." shell::break_;
    "continue" "[LEVELS]" "Begins the next round of a loop; tests the label of a sift again." shell::continue_;
    "exit" "[STATUS]" "Ends the script." shell::exit;
    "shift" "[COUNT]" "Drops leading arguments." variable::shift;
    "set" "[-aeux|+aeux] [WORD...]" "Sets options, or the arguments; shows all variables." variable::set;
    "unset" "NAME..." "Removes variables; functions stay." variable::unset;
    "export" "[NAME...]" "Variables that programs see." variable::export;
    "getopts" "OPTIONS NAME [WORD...]" "The next option of the arguments." variable::getopts;
    "trap" "[COMMAND SIGNAL...]" "What is run at the end of the script (signal 0)." shell::trap;
    "umask" "[MASK]" "The mask of new files." file::umask;
    "cd" "[DIRECTORY]" "Changes the working directory." file::cd;
    "wait" "" "Nothing: nothing runs beside a script." shell::succeed;
    "times" "" "Shows processor times, all zero." shell::times;
    "sleep" "SECONDS" "Waits." shell::sleep;
    "glob" "PATTERN" "Paths that fit, sorted; the pattern itself when none does." file::glob;
    "cat" "FILE..." "The content of files." file::cat;

    "relation" "[-T] -t TYPE[,SUBTYPE] [-f FILE] [-C CONFIG] [-d DRIVER] [-e SECONDS] [-s ENTRIES] [-bilmnNpu%:] NAME" "Makes NAME a command that looks things up; see Databases." relation::relation;
    "db" "add|remove|flush|owner|print|count|toc [NAME [KEY [VALUE]]]" "Works on a relation." relation::database;
    "listexpand" "[-c COMMENT] [-e ADDRESS] [-E ADDRESS] [-p UID] [-N NOTARY] [-k backslash] ATTRIBUTES LOCAL ORIGINAL [TAIL [DOMAIN]]" "Routes each address of the list that it reads, by the function rrouter; the quads of all." expand::list_expand;
    "basename" "PATH [SUFFIX]" "The last part of a path." text::basename;
    "recase" "-u|-l|-p -- TEXT" "The text in upper case, lower case, or with capitals." text::recase;
    "dequote" "[-s TEXT] TEXT" "The text without RFC 822 quotes; with -s blanks are replaced." address::dequote;
    "condquote" "[-s TEXT] TEXT" "The text, quoted when a local part must be." address::condquote;
    "rfc822syntax" "ADDRESS" "Whether the address is well formed." address::syntax;
    "rfc822date" "[-s] [SECONDS]" "A date as in a Date: field; with -s seconds since 1970." text::date;
    "srs_forward" "ADDRESS" "The sender address that stands for another in forwarded mail; the variables srs_domain, srs_secrets, srs_maxage, srs_hashlength, srs_hashmin, srs_separator, srs_alwaysrewrite, srs_noforward and srs_noreverse say how." srs::forward;
    "srs_reverse" "ADDRESS" "The address for which one made by srs_forward stands." srs::reverse;
    "gensym" "" "A new name, valid for one message." variable::gensym;
    "hostname" "[NAME]" "Says or sets the name of this host." account::hostname;
    "iserrormsg" "" "Whether the message is a report about another." account::is_error_message;
    "sender" "" "Whether the header address that is rewritten is one of the sender." account::is_sender;
    "recipient" "" "Whether the header address that is rewritten is one of a recipient." account::is_recipient;
    "isinteractive" "" "Whether somebody types the script." account::is_interactive;
    "login2uid" "NAME" "The number of an account; of nobody when there is none." account::login_to_uid;
    "uid2login" "NUMBER" "The name of an account." account::uid_to_login;
    "homedirectory" "NAME" "The home of an account." account::home;
    "groupmembers" "GROUP" "The members of a group, each on a line." account::members;
    "filepriv" "[-M MASK] FILE [UID]" "The number of the least privileged account that can change the file." account::file_privilege;
    "runas" "USER FUNCTION WORD..." "Runs a function that reads files with the rights of an account." account::run_as;
    "logger" "[-p PRIORITY] TEXT" "A line for the operator." account::logger;
    "syslog" "[-p PRIORITY] TEXT" "The same as logger." account::logger;
    "trace" "TOPIC..." "Nothing; see zmailer route --explain." account::trace;
    "untrace" "TOPIC..." "Nothing; see zmailer route --explain." account::trace;
    "zapDSNnotify" "ATTRIBUTES WHAT [FROM TO]" "Nothing; for old scripts." shell::succeed;
    "postzapDSNnotify" "VARIABLE" "Nothing; for old scripts." shell::succeed;
    "stability" "on|off" "Order of the queue; for old scripts." account::stability;
    "stableprocess" "" "Nothing; for old scripts." shell::succeed;
    "rfc822" "MESSAGE" "In the function process: the message is to be processed, once the function has ended." account::take_message;
    "process" "MESSAGE" "The same as rfc822, where the script has no function of this name." account::take_message;
    "daemon" "" "Nothing; for old scripts." shell::succeed;
    "squirrel" "[-]EVENT..." "Which events of submitted mail keep a copy in postman/: breakin, badheader, illheader, nochannel, nosender." account::squirrel;
    "erraddron" "[FILE]" "Where addresses of submitted headers that cannot be understood are written down; without a file nowhere." account::error_addresses;
    "malcontents" "" "Nothing; for old scripts." shell::succeed;
}
