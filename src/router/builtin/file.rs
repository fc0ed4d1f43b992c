//! Files and directories.

use std::rc::Rc;

use super::{Flow, USAGE};
use crate::router::diagnostic::Source;
use crate::router::machine::{Arguments, Evaluation, Returned};
use crate::router::request::{Answer, Request};
use crate::router::value::Value;

pub(super) fn source(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    let [path] = words.as_slice() else {
        machine.complain("Usage: . file");
        machine.status = USAGE;
        return Ok(());
    };
    let mut candidates = vec![path.clone()];
    if !path.contains(&b'/') {
        let directories = machine.program_path();
        let named = directories
            .split(|byte| *byte == b':')
            .filter(|directory| !directory.is_empty());
        candidates.extend(
            named
                .map(|directory| [directory, b"/", path.as_slice()].concat())
                .collect::<Vec<_>>()
                .into_iter()
                .rev(),
        );
    }
    source_first(machine, candidates)
}

/// Runs the last of the files that is there.
fn source_first(machine: &mut Evaluation, mut candidates: Vec<Vec<u8>>) -> Flow {
    let Some(path) = candidates.pop() else {
        return Ok(());
    };
    let user = machine.acting_user();
    let request = Request::Read {
        path: path.clone(),
        user,
    };
    machine.need(request, move |machine, answer| {
        let Answer::File(result) = answer else {
            unreachable!("{answer:?} is no file")
        };
        match result {
            Ok((bytes, _)) => {
                machine.status = 0;
                let source: Rc<Source> = Source::new(&String::from_utf8_lossy(&path), &bytes);
                machine.run_source(&source)
            }
            Err(_) if !candidates.is_empty() => source_first(machine, candidates),
            Err(failure) => {
                machine.complain(&failure.text);
                machine.status = 1;
                Ok(())
            }
        }
    })
}

pub(super) fn cat(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let mut paths = machine.texts(arguments);
    if paths.is_empty() {
        machine.complain("Usage: cat [filenames ...]");
        machine.status = USAGE;
        return Ok(());
    }
    paths.reverse();
    machine.status = 0;
    let user = machine.acting_user();
    cat_next(machine, paths, user)
}

/// Regular files only; what cannot be read is left out.
fn cat_next(machine: &mut Evaluation, mut paths: Vec<Vec<u8>>, user: Option<u32>) -> Flow {
    let Some(path) = paths.pop() else {
        return Ok(());
    };
    machine.need(Request::Read { path, user }, move |machine, answer| {
        if let Answer::File(Ok((bytes, _))) = answer {
            machine.write(&bytes);
        }
        cat_next(machine, paths, user)
    })
}

pub(super) fn glob(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let Some(Value::Text(pattern)) = machine.argument(arguments, 0) else {
        machine.complain("Usage: glob pattern");
        machine.status = USAGE;
        return Ok(());
    };
    let pattern = pattern.to_vec();
    let request = Request::Glob {
        pattern: pattern.clone(),
    };
    machine.need(request, move |machine, answer| {
        let Answer::Paths(paths) = answer else {
            unreachable!("{answer:?} are no paths")
        };
        let paths = if paths.is_empty() {
            vec![pattern]
        } else {
            paths
        };
        let values = paths
            .iter()
            .map(|path| Value::from(path.as_slice()))
            .collect();
        machine.give_all(Returned::Elements(values))
    })
}

pub(super) fn cd(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    let path = match words.as_slice() {
        [] => {
            let home = machine.symbol(b"HOME")?;
            machine.variable(home).map(|value| value.bytes().to_vec())
        }
        [path] => Some(path.clone()),
        _ => None,
    };
    let Some(path) = path else {
        machine.complain("Usage: cd [ directory ]");
        machine.status = USAGE;
        return Ok(());
    };
    machine.need(Request::Directory(path), |machine, answer| {
        machine.status = 0;
        if let Answer::Done(Err(failure)) = answer {
            machine.complain(&format!("cd: {failure}"));
            machine.status = 2;
        }
        Ok(())
    })
}

pub(super) fn umask(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    let mask = match words.as_slice() {
        [] => Ok(None),
        [word] => {
            let text = std::str::from_utf8(word).unwrap_or("x");
            u32::from_str_radix(text, 8).map(Some).map_err(|_| ())
        }
        _ => Err(()),
    };
    let Ok(mask) = mask else {
        machine.complain("Usage: umask [ mask ]");
        machine.status = USAGE;
        return Ok(());
    };
    machine.need(Request::Umask(mask), move |machine, answer| {
        let Answer::Umask(old) = answer else {
            unreachable!("{answer:?} is no mask")
        };
        if mask.is_none() {
            let text = if old == 0 {
                "0".to_owned()
            } else {
                format!("0{old:o}")
            };
            machine.write(format!("{text}\n").as_bytes());
        }
        machine.status = 0;
        Ok(())
    })
}
