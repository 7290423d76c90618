//! What can be wrong with an expression, before and while it runs.

/// Why an expression cannot be compiled.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum CompileError {
    /// It is no expression.
    #[error("Syntax error: {message} at position {at}")]
    Syntax {
        /// Where, in bytes.
        at: usize,
        /// What.
        message: String,
    },
    /// A variable that is not declared.
    #[error("undeclared reference to '{0}' (in container '')")]
    Undeclared(String),
    /// A function that is not there, or does not take so many arguments.
    #[error("found no matching overload for '{0}' applied to {1} arguments")]
    NoFunction(String, usize),
    /// More than anybody writes.
    #[error("the expression is too large or nests too deep")]
    TooLarge,
}

/// Why an expression has no value.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A field or key that is not there.
    #[error("no such key: {0}")]
    NoSuchKey(String),
    /// A function or operator does not take values of these types.
    #[error("no such overload")]
    NoOverload,
    /// Beyond the end of a list.
    #[error("index out of bounds: {0}")]
    OutOfBounds(i64),
    /// Too large for its type.
    #[error("{0} overflow")]
    Overflow(&'static str),
    /// Division by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// The rest of a division by zero.
    #[error("modulus by zero")]
    ModulusByZero,
    /// The budget is used up.
    #[error("operation cancelled: actual cost limit exceeded")]
    Budget,
    /// What a function does not take for another reason.
    #[error("{0}")]
    Other(String),
}
