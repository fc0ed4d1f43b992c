//! The machine as message processing uses it.

use super::machine::{Evaluation, Turn as MachineTurn};
use super::message::{Call, PROCESS, Reply, Script, Side, Turn, Value as ScriptValue};
use super::relation::Maps;
use super::request::Request;
use super::value::{Text, Value};
use crate::base::clock::Now;

impl ScriptValue for Value {
    fn of_text(text: &[u8]) -> Self {
        Self::Text(Text::from(text))
    }

    fn of_list(items: Vec<Self>) -> Self {
        Self::list(items)
    }

    fn text(&self) -> Option<&[u8]> {
        Value::text(self).map(|text| &**text)
    }

    fn count(&self) -> Option<usize> {
        match self {
            Self::Text(_) => None,
            Self::List(list) => Some(list.len()),
        }
    }

    fn item(&self, index: usize) -> Option<Self> {
        match self {
            Self::Text(_) => None,
            Self::List(list) => list.item(index),
        }
    }

    fn release_before(&self, index: usize) {
        if let Self::List(list) = self {
            list.release_before(index);
        }
    }
}

/// An evaluation with what it needs for a turn.
pub struct Runner<'a> {
    /// The state of one message.
    pub evaluation: &'a mut Evaluation,
    /// The maps as they are now.
    pub maps: &'a dyn Maps,
    /// Now.
    pub now: Now,
}

impl Script for Runner<'_> {
    type Value = Value;
    type Need = Request;

    fn defines(&self, function: &[u8]) -> bool {
        self.evaluation.has_function(function)
    }

    fn mentions(&self, variable: &[u8]) -> bool {
        self.evaluation.knows_name(variable)
    }

    fn fresh_name(&mut self) -> Vec<u8> {
        self.evaluation.new_name()
    }

    fn assign(&mut self, variable: &[u8], value: Value) {
        // A configuration that has used up all names sees no further variables; each call says so by its limit.
        self.evaluation.set_variable(variable, value);
    }

    fn variable(&self, name: &[u8]) -> Option<Value> {
        self.evaluation.variable_named(name)
    }

    fn begin(&mut self, call: Call<'_, Value>) {
        let surroundings = self.evaluation.surroundings();
        surroundings.of_sender = call.side.map(|side| side == Side::Sender);
        surroundings.error_message = call.is_report;
        surroundings.processed = (call.function == PROCESS).then_some(false);
        self.evaluation.call(call.function, call.arguments);
    }

    fn takes_message(&mut self) -> bool {
        self.evaluation.surroundings().processed == Some(true)
    }

    fn run(&mut self) -> Turn<Reply<Value>, Request> {
        loop {
            match self.evaluation.run(self.maps, self.now) {
                MachineTurn::More => {}
                MachineTurn::Done(status) => {
                    let value = self.evaluation.take_returned();
                    let printed = self.evaluation.take_printed();
                    return Turn::Done(Reply {
                        status,
                        value,
                        printed,
                    });
                }
                MachineTurn::Need(request) => return Turn::Need(request),
                MachineTurn::Stopped(limit) => return Turn::Stopped(limit.to_string()),
            }
        }
    }
}
