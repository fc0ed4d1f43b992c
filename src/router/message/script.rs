//! The routing script as message processing sees it: functions that are called, values that come back.
//!
//! A call may need something from outside. Then it gives that to its caller and goes on when it is run
//! again; who answers is not known here.

/// A value of the language: text, or a list of values.
pub trait Value: Clone {
    /// A text.
    fn of_text(text: &[u8]) -> Self;
    /// A list.
    fn of_list(items: Vec<Self>) -> Self;
    /// The bytes of a text; none: a list.
    fn text(&self) -> Option<&[u8]>;
    /// The count of items of a list; none: a text.
    fn count(&self) -> Option<usize>;
    /// An item of a list, from 0.
    fn item(&self, index: usize) -> Option<Self>;
    /// The caller asks for no item before this one again, so the memory of those may be given up.
    fn release_before(&self, _index: usize) {}
}

/// Whether an address, or the header field it stands in, tells of the sender or of a recipient. The
/// built-ins `sender` and `recipient` answer by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// From, Sender, Reply-To.
    Sender,
    /// To, Cc.
    Recipient,
}

/// A function to be called.
#[derive(Clone, Debug)]
pub struct Call<'a, V> {
    /// Its name.
    pub function: &'a [u8],
    /// What it is given.
    pub arguments: Vec<V>,
    /// Set while addresses of a header are rewritten.
    pub side: Option<Side>,
    /// Whether the message is a report of an error, as `iserrormsg` says.
    pub is_report: bool,
}

/// How far a call came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn<T, N> {
    /// It has ended.
    Done(T),
    /// It needs this from outside before it can go on.
    Need(N),
    /// It was stopped at a limit; the text says which.
    Stopped(String),
}

/// What a function gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<V> {
    /// Its status; 0 is success.
    pub status: i32,
    /// What it returned.
    pub value: Option<V>,
    /// What it printed.
    pub printed: Vec<u8>,
}

/// A script with the state of one message. What a message assigns ends with it.
pub trait Script {
    /// Its values.
    type Value: Value;
    /// What a call may need from outside.
    type Need;

    /// Whether there is such a function.
    fn defines(&self, function: &[u8]) -> bool;
    /// Whether any of its text names the variable; where that is not known, true.
    fn mentions(&self, variable: &[u8]) -> bool;
    /// A name no variable has yet, as `gensym` makes them.
    fn fresh_name(&mut self) -> Vec<u8>;
    /// Sets a global variable.
    fn assign(&mut self, variable: &[u8], value: Self::Value);
    /// The value of a global variable.
    fn variable(&self, name: &[u8]) -> Option<Self::Value>;
    /// Begins a call. Only one is under way at any time.
    fn begin(&mut self, call: Call<'_, Self::Value>);
    /// Whether the script's `process`, which has just ended, wants the message to be processed.
    fn takes_message(&mut self) -> bool {
        true
    }
    /// Runs the call, or what is left of it after something was needed and has been answered.
    fn run(&mut self) -> Turn<Reply<Self::Value>, Self::Need>;
}

/// A plain value, for those who have none of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// A text.
    Text(Vec<u8>),
    /// A list.
    List(Vec<Tree>),
}

impl Value for Tree {
    fn of_text(text: &[u8]) -> Self {
        Self::Text(text.to_vec())
    }

    fn of_list(items: Vec<Self>) -> Self {
        Self::List(items)
    }

    fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text),
            Self::List(_) => None,
        }
    }

    fn count(&self) -> Option<usize> {
        match self {
            Self::Text(_) => None,
            Self::List(items) => Some(items.len()),
        }
    }

    fn item(&self, index: usize) -> Option<Self> {
        match self {
            Self::Text(_) => None,
            Self::List(items) => items.get(index).cloned(),
        }
    }
}
