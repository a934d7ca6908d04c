//! Pairs of answers that are equal, and pairs that are not.

use super::equal;

/// Asserts both directions.
fn check(pairs: &[(&str, &str)], expected: bool) {
    for (a, b) in pairs {
        assert_eq!(equal(a, b), expected, "{a:?} and {b:?}");
        assert_eq!(equal(b, a), expected, "{b:?} and {a:?}");
    }
}

#[test]
fn forms_of_a_number_are_equal() {
    check(
        &[
            ("42", "$42$"),
            ("025", "25"),
            ("25.0", "25"),
            (".5", "\\frac{1}{2}"),
            ("0.5", "\\dfrac12"),
            ("1/2", "\\tfrac{1}{2}"),
            ("-\\frac{1}{2}", "\\frac{-1}{2}"),
            ("1\\frac{1}{2}", "\\frac{3}{2}"),
            ("1 1/2", "1.5"),
            ("1,000,000", "1000000"),
            ("1{,}000", "1\\,000"),
            ("2\\sqrt{2}", "\\sqrt{8}"),
            ("\\sqrt{16}", "4"),
            ("\\sqrt[3]{27}", "3"),
            ("\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2}"),
            ("\\frac{\\sqrt3}{3}", "\\frac{1}{\\sqrt{3}}"),
            ("2^{10}", "1024"),
            ("2\\pi", "2π"),
            ("\\frac{\\pi}{2}", "0.5\\pi"),
            ("3.", "3"),
            ("5!", "120"),
            ("\\left(3\\right)", "3"),
            ("2 \\times 10^3", "2000"),
            ("−7", "-7"),
            ("x = 5", "5"),
            ("|-3|", "3"),
        ],
        true,
    );
    check(
        &[
            ("1/3", "0.333"),
            ("0.5", "0.05"),
            ("12", "21"),
            ("3", "-3"),
            ("\\sqrt{2}", "1.41"),
            ("", ""),
            ("5", ""),
            ("2 3", "6"),
            ("100", "10"),
        ],
        false,
    );
}

#[test]
fn percent_and_units_may_be_left_out_but_not_differ() {
    check(
        &[
            ("50\\%", "50"),
            ("50\\%", "0.5"),
            ("50 percent", "\\frac12"),
            ("5 \\text{ cm}", "5"),
            ("5\\text{cm}", "5 cm"),
            ("16 square inches", "16 \\text{ square inches}"),
            ("5 \\text{ cm}^2", "5\\,\\mathrm{cm}^2"),
            ("90^\\circ", "90"),
            ("90^{\\circ}", "90 degrees"),
            ("\\$1,250", "1250"),
            ("15 dollars", "\\$15"),
            ("10 units", "10"),
            ("\\frac{1}{2} \\text{ hour}", "0.5 hours"),
        ],
        true,
    );
    check(
        &[
            ("50\\%", "5"),
            ("50", "0.5"),
            ("5 \\text{ cm}", "5 \\text{ km}"),
            ("5 \\text{ cm}^2", "5 \\text{ cm}"),
            ("3 hours", "3 minutes"),
        ],
        false,
    );
}

#[test]
fn tuples_have_an_order_and_sets_have_none() {
    check(
        &[
            ("(1, 2)", "\\left( 1,2 \\right)"),
            ("(3, \\frac{1}{2})", "(3, 0.5)"),
            ("[0, \\infty)", "[0,∞)"),
            ("\\{1, 2, 3\\}", "\\{3,1,2\\}"),
            ("1, 2", "2,1"),
            ("1 and 2", "2, 1"),
            ("1 \\text{ or } 2", "2, 1"),
            ("\\{5\\}", "5"),
            ("3 \\pm \\sqrt{2}", "3+\\sqrt2, 3-\\sqrt2"),
            ("\\pm 2", "-2, 2"),
            ("(-\\infty, 2) \\cup (3, \\infty)", "(3,\\infty) \\cup (-\\infty,2)"),
            ("x \\in [1,2]", "[1,2]"),
            (
                "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}",
                "\\begin{pmatrix}1&2\\\\3&\\frac{8}{2}\\end{pmatrix}",
            ),
            ("\\emptyset", "\\varnothing"),
        ],
        true,
    );
    check(
        &[
            ("(1, 2)", "(2, 1)"),
            ("(1, 2)", "[1, 2]"),
            ("(1, 2)", "(1, 2, 3)"),
            ("\\{1, 1\\}", "\\{1, 2\\}"),
            ("1, 2", "1"),
            (
                "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}",
                "\\begin{pmatrix} 2 \\\\ 1 \\end{pmatrix}",
            ),
        ],
        false,
    );
}

#[test]
fn terms_are_equal_if_their_values_are() {
    check(
        &[
            ("x^2 + 2x + 1", "(x+1)^2"),
            ("y = 2x - 3", "-3 + 2x"),
            ("\\frac{x}{2}", "0.5x"),
            ("a_1 b", "b a_{1}"),
            ("\\sin^2 x + \\cos^2 x", "\\cos^2 x + \\sin^2 x"),
            ("x^{-1}", "1/x"),
        ],
        true,
    );
    check(&[("x+1", "x-1"), ("x", "y"), ("2x", "x^2"), ("ab", "ac")], false);
}

#[test]
fn words_are_compared_without_their_form() {
    check(
        &[
            ("\\text{Monday}", "monday"),
            ("(B)", "\\text{B}"),
            ("\\textbf{(C)}", "C"),
            ("\\text{even}", "\\mathrm{even}"),
        ],
        true,
    );
    check(&[("Monday", "Sunday"), ("listen", "silent"), ("A", "B"), ("(A)", "(B)")], false);
}

#[test]
fn hostile_answers_end() {
    let deep = format!("{}1{}", "(".repeat(900), ")".repeat(900));
    let long = "1+".repeat(900);
    let fractions = "\\frac{".repeat(300);
    let commas = ",".repeat(1500);
    for text in
        [deep.as_str(), &long, &fractions, &commas, "\\", "^", "{}", "\\frac", "é²½\\é", "1e999"]
    {
        assert!(!equal(text, "7"), "{text}");
    }
    let huge = "9".repeat(60);
    assert!(!equal(&huge, "7"));
    assert!(equal(&format!("{huge}^{{{huge}}}"), &format!("{huge}^{{{huge}}}")));
}
