//! Terms: a parser for LaTeX and plain text.

use super::rational::Rational;

/// Deepest nesting that is parsed.
const DEEPEST: usize = 40;

/// A term.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    Number(Rational),
    /// A letter with its index, or `π`.
    Variable(String),
    Sum(Box<Expression>, Box<Expression>),
    Product(Box<Expression>, Box<Expression>),
    Quotient(Box<Expression>, Box<Expression>),
    Power(Box<Expression>, Box<Expression>),
    Negated(Box<Expression>),
    /// Root with its index.
    Root(Box<Expression>, Box<Expression>),
    Function(Function, Box<Expression>),
}

/// A function of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Sine,
    Cosine,
    Tangent,
    Logarithm,
    /// Logarithm to the base 10.
    Decimal,
    Exponential,
    Absolute,
    Factorial,
}

/// Names of functions, with and without a backslash; longer names first.
const FUNCTIONS: [(&str, Function); 6] = [
    ("sin", Function::Sine),
    ("cos", Function::Cosine),
    ("tan", Function::Tangent),
    ("log", Function::Decimal),
    ("ln", Function::Logarithm),
    ("exp", Function::Exponential),
];

/// Parses a whole text; `None` if it is not a term.
pub(super) fn parse(text: &str) -> Option<Expression> {
    let mut parser = Parser { rest: text, depth: 0 };
    let expression = parser.sum()?;
    parser.blanks();
    parser.rest.is_empty().then_some(expression)
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Takes a text if it is next.
    fn take(&mut self, text: &str) -> bool {
        self.blanks();
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes a command such as `\frac`, which no letter follows.
    fn command(&mut self, name: &str) -> bool {
        self.blanks();
        let rest = self.rest.strip_prefix('\\').and_then(|rest| rest.strip_prefix(name));
        match rest.filter(|rest| !rest.starts_with(|c: char| c.is_ascii_alphabetic())) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn sum(&mut self) -> Option<Expression> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let mut left = self.product()?;
        loop {
            left = if self.take("+") {
                Expression::Sum(left.into(), self.product()?.into())
            } else if self.take("-") {
                let right = Expression::Negated(self.product()?.into());
                Expression::Sum(left.into(), right.into())
            } else {
                break;
            };
        }
        self.depth -= 1;
        Some(left)
    }

    fn product(&mut self) -> Option<Expression> {
        if self.take("-") {
            return Some(Expression::Negated(self.product_of_factors()?.into()));
        }
        self.take("+");
        self.product_of_factors()
    }

    fn product_of_factors(&mut self) -> Option<Expression> {
        let mut left = self.factor()?;
        loop {
            let times = self.take("*") || self.command("cdot") || self.command("times");
            left = if times {
                Expression::Product(left.into(), self.signed_factor()?.into())
            } else if self.take("/") || self.command("div") {
                Expression::Quotient(left.into(), self.signed_factor()?.into())
            } else if is_number(&left) && self.begins_number() {
                // 1 1/2 is a mixed number; two numbers side by side are nothing.
                let over = self.number()?;
                let fraction = self.take("/").then(|| {
                    self.blanks();
                    self.number()
                });
                let fraction = Expression::Quotient(over.into(), fraction??.into());
                Expression::Sum(left.into(), fraction.into())
            } else if self.begins_factor() {
                let right = self.factor()?;
                match (&left, &right) {
                    // 1\frac{1}{2} is a mixed number.
                    (Expression::Number(_), Expression::Quotient(over, under))
                        if is_number(over) && is_number(under) =>
                    {
                        Expression::Sum(left.into(), right.into())
                    }
                    _ => Expression::Product(left.into(), right.into()),
                }
            } else {
                return Some(left);
            };
        }
    }

    fn signed_factor(&mut self) -> Option<Expression> {
        match self.take("-") {
            true => Some(Expression::Negated(self.factor()?.into())),
            false => self.factor(),
        }
    }

    /// Whether a factor follows without a sign of multiplication.
    fn begins_factor(&mut self) -> bool {
        self.blanks();
        self.rest.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '(' | '[' | '{' | '\\'))
    }

    fn begins_number(&mut self) -> bool {
        self.blanks();
        self.rest.starts_with(|c: char| c.is_ascii_digit())
    }

    fn factor(&mut self) -> Option<Expression> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let mut base = self.base()?;
        while self.rest.starts_with('!') {
            self.rest = &self.rest[1..];
            base = Expression::Function(Function::Factorial, base.into());
        }
        if self.take("^") {
            let exponent = match self.take("-") {
                true => Expression::Negated(self.argument()?.into()),
                false => self.argument()?,
            };
            base = Expression::Power(base.into(), exponent.into());
        }
        self.depth -= 1;
        Some(base)
    }

    fn base(&mut self) -> Option<Expression> {
        self.blanks();
        for (open, close) in [("(", ")"), ("[", "]"), ("{", "}"), ("|", "|")] {
            if self.take(open) {
                let inner = self.sum()?;
                let inner = self.take(close).then_some(inner)?;
                return Some(match open {
                    "|" => Expression::Function(Function::Absolute, inner.into()),
                    _ => inner,
                });
            }
        }
        if let Some(number) = self.number() {
            return Some(number);
        }
        if self.command("frac") {
            return Some(Expression::Quotient(self.argument()?.into(), self.argument()?.into()));
        }
        if self.command("sqrt") || self.take("sqrt") {
            let index = match self.take("[") {
                true => {
                    let index = self.sum()?;
                    self.take("]").then_some(index)?
                }
                false => Expression::Number(Rational::new(2, 1)?),
            };
            return Some(Expression::Root(self.argument()?.into(), index.into()));
        }
        if self.command("pi") || self.take("pi") || self.take("π") {
            return Some(Expression::Variable("π".into()));
        }
        for (name, function) in FUNCTIONS {
            if self.command(name) || self.take(name) {
                return self.function(function);
            }
        }
        self.variable()
    }

    /// The argument of a function, after its power, if it has one: `\sin^2 x`.
    fn function(&mut self, function: Function) -> Option<Expression> {
        let power = if self.take("^") { Some(self.argument()?) } else { None };
        let value = Expression::Function(function, self.factor()?.into());
        Some(match power {
            Some(power) => Expression::Power(value.into(), power.into()),
            None => value,
        })
    }

    /// What a command applies to: a group, a digit, a letter or a command.
    fn argument(&mut self) -> Option<Expression> {
        self.blanks();
        match self.rest.chars().next()? {
            digit if digit.is_ascii_digit() => {
                let (first, rest) = self.rest.split_at(1);
                self.rest = rest;
                Some(Expression::Number(Rational::decimal(first)?))
            }
            _ => self.base(),
        }
    }

    fn number(&mut self) -> Option<Expression> {
        let is_part = |c: char| c.is_ascii_digit() || c == '.';
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let number = Rational::decimal(&self.rest[..end])?;
        self.rest = &self.rest[end..];
        Some(Expression::Number(number))
    }

    /// A letter or a Greek letter's command, with its index.
    fn variable(&mut self) -> Option<Expression> {
        let word = match self.rest.strip_prefix('\\') {
            Some(rest) => {
                let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
                (end > 0 && is_letter(&rest[..end])).then_some(1 + end)?
            }
            None => self.rest.chars().next().filter(|c| c.is_alphabetic())?.len_utf8(),
        };
        let (name, rest) = self.rest.split_at(word);
        let mut name = name.to_string();
        self.rest = rest;
        if self.rest.starts_with('_') {
            let rest = &self.rest[1..];
            let end = match rest.strip_prefix('{') {
                Some(group) => group.find('}')? + 2,
                None => rest.chars().next()?.len_utf8(),
            };
            name.push('_');
            name.push_str(rest[..end].trim_matches(['{', '}']));
            self.rest = &rest[end..];
        }
        Some(Expression::Variable(name))
    }
}

/// Whether a command is a letter.
fn is_letter(name: &str) -> bool {
    let letters = "alpha beta gamma delta epsilon varepsilon theta lambda mu phi varphi omega rho \
                   sigma tau infty";
    letters.split(' ').any(|letter| letter == name)
}

fn is_number(expression: &Expression) -> bool {
    matches!(expression, Expression::Number(_))
}
