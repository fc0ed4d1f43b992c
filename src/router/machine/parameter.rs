//! Parameters: their values, and what is done about those that have none.

use super::Evaluation;
use crate::router::code::Param;
use crate::router::value::{Text, Value};

impl Evaluation {
    /// The value of a parameter; none: unset.
    pub(super) fn parameter(&mut self, parameter: Param) -> Option<Value> {
        let number = |count: usize| Some(Value::Text(Text::of_number(count)));
        match parameter {
            Param::Variable(symbol) => self.state.copy(symbol),
            Param::Positional(0) => {
                let name = self.frame().and_then(|frame| frame.name);
                Some(match name {
                    Some(symbol) => Value::Text(self.state.symbols.name(symbol).clone()),
                    None => Value::from("router"),
                })
            }
            // A list reaches named parameters only: written `$1` it is an empty text.
            Param::Positional(at) => {
                let value = self.frame()?.positionals.get(at as usize - 1)?;
                Some(match value {
                    Value::Text(_) => value.clone(),
                    Value::List(_) => self.empty_text(),
                })
            }
            Param::Count => number(self.frame().map_or(0, |frame| frame.positionals.len())),
            Param::Indirect(symbol) => {
                let name = self.state.value(symbol)?.text()?.clone();
                let symbol = self.state.symbol_in_use(&name)?;
                self.state.copy(symbol)
            }
            Param::CountOf(symbol) => match self.state.value(symbol)? {
                Value::List(list) => number(list.len()),
                Value::Text(_) => None,
            },
            Param::Star | Param::At => {
                let any = self
                    .frame()
                    .is_some_and(|frame| !frame.positionals.is_empty());
                any.then(|| self.empty_text())
            }
            Param::Status => Some(Value::from(self.status.to_string().as_bytes())),
            Param::Process => number(std::process::id() as usize),
            Param::Flags => Some(Value::from(self.option_letters().as_bytes())),
        }
    }

    fn option_letters(&self) -> String {
        let options = &self.state.options;
        let set = [
            (options.export_all, 'a'),
            (options.exit_on_failure, 'e'),
            (options.unset_is_error, 'u'),
            (options.show_commands, 'x'),
        ];
        let letters: String = set
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, letter)| *letter)
            .collect();
        if letters.is_empty() {
            "-".to_owned()
        } else {
            letters
        }
    }

    pub(super) fn is_set(&mut self, parameter: Param, colon: bool) -> bool {
        match self.parameter(parameter) {
            None => false,
            Some(Value::Text(text)) => !colon || !text.is_empty(),
            Some(Value::List(list)) => !colon || !list.is_empty(),
        }
    }

    /// With `set -u` an unset parameter ends the script; whether it did.
    pub(super) fn unset_parameter(&mut self, parameter: Param) -> bool {
        if !self.state.options.unset_is_error {
            return false;
        }
        let message = format!("{}: parameter not set", self.parameter_name(parameter));
        self.complain(&message);
        self.exit(1);
        true
    }

    fn parameter_name(&self, parameter: Param) -> String {
        match parameter {
            Param::Variable(symbol) | Param::CountOf(symbol) | Param::Indirect(symbol) => {
                String::from_utf8_lossy(self.state.symbols.name(symbol)).into_owned()
            }
            Param::Positional(number) => number.to_string(),
            Param::Count => "#".to_owned(),
            Param::Star => "*".to_owned(),
            Param::At => "@".to_owned(),
            Param::Status => "?".to_owned(),
            Param::Process => "$".to_owned(),
            Param::Flags => "-".to_owned(),
        }
    }

    pub(super) fn assign_default(&mut self, parameter: Param) {
        let value = self.pop_value();
        if let Param::Variable(symbol) = parameter {
            self.state.assign(symbol, value.clone());
            self.sift_sees(symbol);
        }
        self.add_value(&value, false);
    }

    pub(super) fn complain_unset(&mut self, parameter: Param) {
        let value = self.pop_value();
        let message = String::from_utf8_lossy(value.bytes()).into_owned();
        let message = format!("{}: {message}", self.parameter_name(parameter));
        self.complain(&message);
        self.exit(1);
    }
}
