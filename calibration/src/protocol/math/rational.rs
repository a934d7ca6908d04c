//! Exact fractions.

/// Longest exponent that is computed exactly.
const MOST_POWER: i128 = 64;

/// A reduced fraction with a positive denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rational {
    over: i128,
    under: i128,
}

/// Functions return `None` on overflow and division by zero.
impl Rational {
    /// `over / under`.
    pub fn new(over: i128, under: i128) -> Option<Self> {
        if under == 0 {
            return None;
        }
        let divisor = gcd(over.checked_abs()?, under.checked_abs()?);
        let sign = under.signum();
        Some(Self { over: sign.checked_mul(over / divisor)?, under: (under / divisor).abs() })
    }

    /// The number of digits with at most one decimal point.
    pub fn decimal(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        if whole.len() + part.len() == 0 || part.contains('.') {
            return None;
        }
        let under = 10i128.checked_pow(u32::try_from(part.len()).ok()?)?;
        let digits = format!("{whole}{part}");
        digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
        Self::new(digits.parse().ok()?, under)
    }

    pub fn plus(self, other: Self) -> Option<Self> {
        let left = self.over.checked_mul(other.under)?;
        let right = other.over.checked_mul(self.under)?;
        Self::new(left.checked_add(right)?, self.under.checked_mul(other.under)?)
    }

    pub fn times(self, other: Self) -> Option<Self> {
        Self::new(self.over.checked_mul(other.over)?, self.under.checked_mul(other.under)?)
    }

    pub fn over(self, other: Self) -> Option<Self> {
        Self::new(self.over.checked_mul(other.under)?, self.under.checked_mul(other.over)?)
    }

    pub fn negated(self) -> Option<Self> {
        Some(Self { over: self.over.checked_neg()?, under: self.under })
    }

    /// A power with a whole exponent.
    pub fn power(self, exponent: Self) -> Option<Self> {
        if exponent.under != 1 || exponent.over.abs() > MOST_POWER {
            return None;
        }
        let power = u32::try_from(exponent.over.unsigned_abs()).ok()?;
        let (over, under) = (self.over.checked_pow(power)?, self.under.checked_pow(power)?);
        if exponent.over < 0 { Self::new(under, over) } else { Self::new(over, under) }
    }

    /// The root, if it is rational.
    pub fn root(self, index: u32) -> Option<Self> {
        Self::new(root(self.over, index)?, root(self.under, index)?)
    }

    pub fn to_f64(self) -> f64 {
        self.over as f64 / self.under as f64
    }
}

fn gcd(mut a: i128, mut b: i128) -> i128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

/// The whole root of a number that is one's power.
fn root(number: i128, index: u32) -> Option<i128> {
    if number < 0 || index == 0 {
        return None;
    }
    let near = (number as f64).powf(1.0 / f64::from(index)).round() as i128;
    let is_root = |root: &i128| *root >= 0 && root.checked_pow(index) == Some(number);
    (near - 1..=near + 1).find(is_root)
}
