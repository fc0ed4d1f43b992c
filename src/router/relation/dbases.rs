//! `dbases.conf`: which sources stand behind which relation. `zmailer newdb` compiles what is to be compiled
//! and writes for each relation a script that defines it.
//!
//! ```text
//! #relation  type[,sub]  rights        compile  file                flags of relation
//! aliases    $DBTYPE     root:0:644    -la      $MAILVAR/db/aliases -lm
//! routesdb   $DBTYPE     -             -l       $MAILVAR/db/routes  -lm%:d pathalias
//! thishost   bind,mxlocal -            -        -                   -ld pathalias
//! expired    NONE        -             -        -                   -
//! ```
//!
//! Several lines of one relation are asked in their order, the first match counts. `NONE` is never matched
//! and only keeps the relation in being. A line whose first character is not a letter or digit is a comment.

use std::fmt::Write as _;

use super::definition::{Definition, Parsed};
use super::kind::Kind;
use super::source::Problem;

/// Rights for which the answers of a relation count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Owner, by name or number.
    pub user: String,
    /// Group, by name or number.
    pub group: String,
    /// Mode.
    pub mode: u32,
}

/// A source of a relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Name of the relation.
    pub relation: String,
    /// Type as it is written.
    pub kind: String,
    /// Whose the compiled file is to be; none: nobody cares.
    pub rights: Option<Rights>,
    /// How it is compiled; none: it is not.
    pub compile: Option<Compile>,
    /// The file; empty: none.
    pub file: String,
    /// Flags of `relation`.
    pub flags: String,
    /// Line, from 1.
    pub line: usize,
}

/// How a source is compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compile {
    /// `-a`.
    pub aliases: bool,
    /// `-l`.
    pub lower: bool,
    /// `-u`.
    pub upper: bool,
}

impl Source {
    /// It only keeps the relation in being.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.kind == "NONE"
    }

    /// The type once `$DBTYPE` is replaced.
    #[must_use]
    pub fn resolved(&self, dbtype: &str) -> Option<Kind> {
        let kind = self.kind.replace("$DBTYPE", dbtype);
        let name = kind.split([',', '/']).next().unwrap_or_default();
        Kind::parse(name.as_bytes())
    }
}

/// Reads the file. `dbtype` is what `$DBTYPE` stands for.
///
/// # Errors
/// Everything that is wrong.
pub fn parse(text: &str, dbtype: &str) -> Result<Vec<Source>, Vec<Problem>> {
    let mut sources = Vec::new();
    let mut problems = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if !line.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            continue;
        }
        match source(line, number + 1, dbtype) {
            Ok(source) => sources.push(source),
            Err((column, text)) => problems.push(Problem {
                line: number + 1,
                column,
                origin: 0,
                text,
                is_error: true,
            }),
        }
    }
    if problems.is_empty() {
        Ok(sources)
    } else {
        Err(problems)
    }
}

fn source(line: &str, number: usize, dbtype: &str) -> Result<Source, (usize, String)> {
    let fields: Vec<(usize, &str)> = fields(line);
    let field = |at: usize| {
        let field = fields.get(at).copied();
        field.ok_or_else(|| {
            let text = "a line is: relation type rights compile file flags, each of which may be -";
            (line.len() + 1, text.to_owned())
        })
    };
    let ((_, relation), (kind_at, kind)) = (field(0)?, field(1)?);
    if !relation
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        || relation.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err((1, format!("{relation} cannot be the name of a function")));
    }
    let ((rights_at, rights), (compile_at, compile), (file_at, file)) =
        (field(2)?, field(3)?, field(4)?);
    if file.contains(['"', '`', '\\']) || file.contains("$(") {
        return Err((file_at, format!("{file} cannot be the name of a file")));
    }
    let flags_at = field(5).map_or(line.len(), |(at, _)| at - 1);
    let flags = line[flags_at..].trim();
    let flags = if flags == "-" { "" } else { flags };
    let source = Source {
        relation: relation.to_owned(),
        kind: kind.to_owned(),
        rights: parse_rights(rights).map_err(|text| (rights_at, text))?,
        compile: parse_compile(compile).map_err(|text| (compile_at, text))?,
        file: if file == "-" { "" } else { file }.to_owned(),
        flags: flags.to_owned(),
        line: number,
    };
    if !source.is_none() {
        let kind = source.kind.replace("$DBTYPE", dbtype);
        let mut words: Vec<&[u8]> = flags.split_whitespace().map(str::as_bytes).collect();
        words.extend([&b"-t"[..], kind.as_bytes(), relation.as_bytes()]);
        match Definition::parse(&words, |_| None) {
            Ok(Parsed::Define { .. }) => {}
            Ok(Parsed::Known) => return Err((flags_at + 1, "-T defines nothing".to_owned())),
            Err(failure) => {
                let at = if failure.status == 3 {
                    kind_at
                } else {
                    flags_at + 1
                };
                let text = failure.text.lines().next().unwrap_or_default();
                return Err((at, text.to_owned()));
            }
        }
        if flags.bytes().any(|byte| b"\"'`$;&|<>()\\".contains(&byte)) {
            return Err((flags_at + 1, "flags are plain words".to_owned()));
        }
    }
    Ok(source)
}

/// Words with their columns.
fn fields(line: &str) -> Vec<(usize, &str)> {
    let start = line.as_ptr().addr();
    let words = line.split_whitespace();
    words
        .map(|word| (word.as_ptr().addr() - start + 1, word))
        .collect()
}

fn parse_rights(text: &str) -> Result<Option<Rights>, String> {
    if text == "-" {
        return Ok(None);
    }
    let mut parts = text.split(':');
    let (user, group) = (parts.next(), parts.next());
    let mode = u32::from_str_radix(parts.next().unwrap_or("644"), 8);
    match (user, group, mode, parts.next()) {
        (Some(user), Some(group), Ok(mode), None) if mode <= 0o777 => Ok(Some(Rights {
            user: user.to_owned(),
            group: group.to_owned(),
            mode,
        })),
        _ => Err(format!("{text} is not USER:GROUP:MODE or -")),
    }
}

fn parse_compile(text: &str) -> Result<Option<Compile>, String> {
    let mut compile = Compile::default();
    let Some(letters) = text.strip_prefix('-') else {
        return Err(format!("{text} is not a word of -l, -u, -a, or -r, or -"));
    };
    for letter in letters.chars() {
        match letter {
            'a' => compile.aliases = true,
            'l' => compile.lower = true,
            'u' => compile.upper = true,
            // The file is made by somebody else.
            'r' => return Ok(None),
            _ => return Err(format!("-{letter} is none of -l, -u, -a, -r")),
        }
    }
    if compile.lower && compile.upper {
        return Err("-l and -u exclude each other".to_owned());
    }
    Ok(Some(compile))
}

/// The script that defines a relation from its sources. `entries` gives what an `incore` source holds: it is
/// put into the script.
#[must_use]
pub fn script(
    relation: &str,
    sources: &[Source],
    entries: impl Fn(&Source) -> Vec<(Vec<u8>, Vec<u8>)>,
) -> Vec<u8> {
    let mut out = format!(
        "# The relation {relation}, written by `zmailer newdb` from dbases.conf. Changes here are lost.\n\n"
    )
    .into_bytes();
    let mut body = format!("\n{relation} () {{\n\tlocal a\n");
    let own = sources.iter().filter(|source| source.relation == relation);
    for (number, source) in own.filter(|source| !source.is_none()).enumerate() {
        let name = format!("{relation}_{}", number + 1);
        out.extend_from_slice(definition(source, &name).as_bytes());
        if source.kind == "incore" && !source.file.is_empty() {
            for (key, value) in entries(source) {
                out.extend_from_slice(format!("db add {name} ").as_bytes());
                quote(&mut out, &key);
                out.push(b' ');
                quote(&mut out, &value);
                out.push(b'\n');
            }
        }
        // Writing to a string cannot fail.
        let _ = match &source.rights {
            None => writeln!(
                body,
                "\tif a=\"$({name} \"$@\")\"; then\n\t\treturns \"$a\"\n\tfi"
            ),
            Some(rights) => writeln!(
                body,
                "\tif a=\"$({name} \"$@\")\"; then\n\t\tpriv=\"$(filepriv -M {:o} \"{}{}\" \
                 \"$(db owner {name})\")\" &&\n\t\treturns \"$a\"\n\tfi",
                rights.mode,
                source.file,
                extension(source, "$DBEXTtest"),
            ),
        };
    }
    body.push_str("\treturn 1\n}\n");
    out.extend_from_slice(body.as_bytes());
    out
}

fn definition(source: &Source, name: &str) -> String {
    let mut text = "relation".to_owned();
    if !source.flags.is_empty() {
        text.push(' ');
        text.push_str(&source.flags);
    }
    // Writing to a string cannot fail.
    let _ = write!(text, " -t {}", source.kind);
    if !source.file.is_empty() && source.kind != "incore" {
        let _ = write!(
            text,
            " -f \"{}{}\"",
            source.file,
            extension(source, "$DBEXT")
        );
    }
    let _ = writeln!(text, " {name}");
    text
}

fn extension(source: &Source, variable: &str) -> String {
    if source.kind.contains("DBTYPE") {
        return variable.to_owned();
    }
    match Kind::parse(source.kind.as_bytes()) {
        Some(Kind::Compiled(extension)) => format!(".{extension}"),
        _ => String::new(),
    }
}

/// A word that the shell takes as it stands.
fn quote(out: &mut Vec<u8>, word: &[u8]) {
    out.push(b'\'');
    for byte in word {
        if *byte == b'\'' {
            out.extend_from_slice(b"'\\''");
        } else {
            out.push(*byte);
        }
    }
    out.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "#| comment\n#aliases x\naliases\t$DBTYPE root:0:644 -la $MAILVAR/db/aliases -lm\n\
                        aliases gdbm - -r /other -lm\nroutesdb $DBTYPE - -l $MAILVAR/db/routes -lm%:d pathalias\n\
                        thishost bind,mxlocal - - - -ld pathalias\nmem incore - - /words -\nexpired NONE - - - -\n";

    fn text_of(relation: &str) -> String {
        let sources = parse(TEXT, "cdb").unwrap();
        let entries = |_: &Source| vec![(b"it's".to_vec(), b"$(x) \\".to_vec())];
        String::from_utf8(script(relation, &sources, entries)).unwrap()
    }

    #[test]
    fn lines_are_read() {
        let sources = parse(TEXT, "cdb").unwrap();
        assert_eq!(sources.len(), 6);
        let aliases = &sources[0];
        assert_eq!(aliases.resolved("cdb"), Some(Kind::Compiled("cdb")));
        assert_eq!(aliases.rights.as_ref().unwrap().mode, 0o644);
        let compile = Compile {
            aliases: true,
            lower: true,
            upper: false,
        };
        assert_eq!(aliases.compile, Some(compile));
        assert_eq!(
            (sources[1].compile, sources[2].flags.as_str()),
            (None, "-lm%:d pathalias")
        );
        assert!(sources[5].is_none());
    }

    #[test]
    fn scripts_define_the_relation() {
        let aliases = "relation -lm -t $DBTYPE -f \"$MAILVAR/db/aliases$DBEXT\" aliases_1\n\
                       relation -lm -t gdbm -f \"/other.gdbm\" aliases_2\n\naliases () {\n\tlocal a\n\
                       \tif a=\"$(aliases_1 \"$@\")\"; then\n\t\tpriv=\"$(filepriv -M 644 \
                       \"$MAILVAR/db/aliases$DBEXTtest\" \"$(db owner aliases_1)\")\" &&\n\t\treturns \"$a\"\n\
                       \tfi\n\tif a=\"$(aliases_2 \"$@\")\"; then\n\t\treturns \"$a\"\n\tfi\n\treturn 1\n}\n";
        assert!(
            text_of("aliases").ends_with(aliases),
            "{}",
            text_of("aliases")
        );
        let host = "relation -ld pathalias -t bind,mxlocal thishost_1\n";
        assert!(
            text_of("thishost").contains(host),
            "{}",
            text_of("thishost")
        );
        assert!(text_of("expired").ends_with("\nexpired () {\n\tlocal a\n\treturn 1\n}\n"));
        // What a file says is never code.
        let mem = "relation -t incore mem_1\ndb add mem_1 'it'\\''s' '$(x) \\'\n";
        assert!(text_of("mem").contains(mem), "{}", text_of("mem"));
    }

    #[test]
    fn problems_are_named() {
        let rows = [
            ("aliases $DBTYPE - -l", "1:21: error: a line is: relation"),
            ("ali-ases $DBTYPE - - - -", "1:1: error: ali-ases cannot be"),
            (
                "a nosuch - - - -",
                "1:3: error: relation: type nosuch is not known",
            ),
            (
                "a incore root - - -",
                "1:10: error: root is not USER:GROUP:MODE",
            ),
            ("a incore 0:0:9 - - -", "1:10: error: 0:0:9 is not"),
            ("a cdb - -x f -", "1:9: error: -x is none"),
            ("a cdb - -lu f -", "1:9: error: -l and -u"),
            ("a cdb - l f -", "1:9: error: l is not"),
            (
                "a incore - - - -d nodriver",
                "1:16: error: relation: driver nodriver",
            ),
            (
                "a incore - - - -C x;y",
                "1:16: error: flags are plain words",
            ),
            ("a cdb - - $(x) -", "1:11: error: $(x) cannot be"),
        ];
        for (line, text) in rows {
            let problems = parse(line, "cdb").unwrap_err();
            assert!(
                problems[0].to_string().starts_with(text),
                "{line}: {}",
                problems[0]
            );
        }
        assert_eq!(
            parse("a x - - - -\nok NONE - - - -\nb y - - - -\n", "cdb")
                .unwrap_err()
                .len(),
            2
        );
    }
}
