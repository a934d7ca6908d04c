//! Rewrites the syntax tree of a template so that values are checked wherever they are combined,
//! compared, converted or written.
//!
//! The engine counts executed instructions, but not the work that one instruction does with a
//! value: a list that contains itself forty times over is small until it is printed, and a list
//! nested a million levels deep overflows the stack. Operands, arguments and values stored in
//! variables therefore pass through the filter [`HELD`], and items of literals through [`LISTED`]
//! (see [`super::guard`]).

use minijinja::machinery::ast::{self, BinOpKind, CallArg, Expr, Spanned, Stmt, UnaryOpKind};
use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, ErrorKind};

/// Filter that checks a value and converts lazily computed values to lists. Templates cannot spell
/// its name.
pub(super) const HELD: &str = "<held>";
/// Filter that converts lazily computed values to lists.
pub(super) const LISTED: &str = "<listed>";

/// Maximum number of tokens between two braces. Parsers and compilers recurse over chains such as
/// `a ~ a ~ a`.
const TAG_TOKENS: usize = 2048;
/// Maximum number of `elif`s in a template, each of which nests in the previous one.
const ELIFS: usize = 512;

/// Rejects templates that would nest too deeply for the parser.
pub(super) fn check(source: &str, syntax: &SyntaxConfig) -> Result<(), Error> {
    let refuse = |what: String| Err(Error::new(ErrorKind::SyntaxError, what));
    let (mut tokens, mut elifs) = (0, 0);
    for token in tokenize(source, false, syntax.clone()) {
        match token?.0 {
            Token::VariableStart | Token::BlockStart => tokens = 0,
            Token::Ident("elif") => elifs += 1,
            _ => tokens += 1,
        }
        if tokens > TAG_TOKENS {
            return refuse(format!("an expression has more than {TAG_TOKENS} parts"));
        }
        if elifs > ELIFS {
            return refuse(format!("it has more than {ELIFS} `elif`s"));
        }
    }
    Ok(())
}

/// Returns the tree with checks inserted.
pub(super) fn guarded<'a>(stmt: &Stmt<'a>) -> Stmt<'a> {
    macro_rules! like {
        ($node:expr, $new:expr) => {
            Spanned::new($new, $node.span())
        };
    }
    match stmt {
        Stmt::Template(s) => Stmt::Template(like!(s, ast::Template { children: all(&s.children) })),
        // `loop(...)` recurses into the loop that it belongs to, and is recognized by being the
        // whole expression.
        Stmt::EmitExpr(s) if is_call_of_loop(&s.expr) => {
            Stmt::EmitExpr(like!(s, ast::EmitExpr { expr: expr(&s.expr) }))
        }
        Stmt::EmitExpr(s) => Stmt::EmitExpr(like!(s, ast::EmitExpr { expr: held(&s.expr) })),
        Stmt::EmitRaw(s) => Stmt::EmitRaw(like!(s, ast::EmitRaw { raw: s.raw })),
        Stmt::ForLoop(s) => Stmt::ForLoop(like!(
            s,
            ast::ForLoop {
                target: target(&s.target),
                iter: expr(&s.iter),
                filter_expr: s.filter_expr.as_ref().map(expr),
                recursive: s.recursive,
                body: all(&s.body),
                else_body: all(&s.else_body),
            }
        )),
        Stmt::IfCond(s) => Stmt::IfCond(like!(
            s,
            ast::IfCond {
                expr: expr(&s.expr),
                true_body: all(&s.true_body),
                false_body: all(&s.false_body),
            }
        )),
        Stmt::WithBlock(s) => {
            let assignments = s.assignments.iter().map(|(to, from)| (target(to), held(from)));
            let assignments = assignments.collect();
            Stmt::WithBlock(like!(s, ast::WithBlock { assignments, body: all(&s.body) }))
        }
        Stmt::Set(s) => {
            Stmt::Set(like!(s, ast::Set { target: target(&s.target), expr: held(&s.expr) }))
        }
        Stmt::SetBlock(s) => Stmt::SetBlock(like!(
            s,
            ast::SetBlock {
                target: target(&s.target),
                filter: s.filter.as_ref().map(expr),
                body: all(&s.body),
            }
        )),
        Stmt::AutoEscape(s) => Stmt::AutoEscape(like!(
            s,
            ast::AutoEscape { enabled: expr(&s.enabled), body: all(&s.body) }
        )),
        Stmt::FilterBlock(s) => Stmt::FilterBlock(like!(
            s,
            ast::FilterBlock {
                filter: expr(&s.filter),
                filter_span: s.filter_span,
                body: all(&s.body),
            }
        )),
        Stmt::Macro(s) => Stmt::Macro(like!(s, macro_of(s))),
        Stmt::CallBlock(s) => Stmt::CallBlock(like!(
            s,
            ast::CallBlock {
                call: like!(s.call, call(&s.call)),
                call_expr_span: s.call_expr_span,
                macro_decl: like!(s.macro_decl, macro_of(&s.macro_decl)),
            }
        )),
        Stmt::Continue(s) => Stmt::Continue(like!(s, ast::Continue)),
        Stmt::Break(s) => Stmt::Break(like!(s, ast::Break)),
        Stmt::Do(s) => Stmt::Do(like!(s, ast::Do { call: like!(s.call, call(&s.call)) })),
    }
}

fn all<'a>(stmts: &[Stmt<'a>]) -> Vec<Stmt<'a>> {
    stmts.iter().map(guarded).collect()
}

fn is_call_of_loop(expr: &Expr) -> bool {
    matches!(expr, Expr::Call(call) if matches!(&call.expr, Expr::Var(var) if var.id == "loop"))
}

fn macro_of<'a>(m: &ast::Macro<'a>) -> ast::Macro<'a> {
    ast::Macro {
        name: m.name,
        args: m.args.iter().map(target).collect(),
        defaults: m.defaults.iter().map(held).collect(),
        body: all(&m.body),
    }
}

/// The left side of an assignment.
fn target<'a>(to: &Expr<'a>) -> Expr<'a> {
    match to {
        Expr::List(list) => {
            let items = list.items.iter().map(target).collect();
            Expr::List(Spanned::new(ast::List { items }, list.span()))
        }
        other => expr(other),
    }
}

/// Returns an expression whose value is checked, unless the value is certain to be a number, text
/// or boolean.
fn held<'a>(value: &Expr<'a>) -> Expr<'a> {
    match value {
        Expr::Const(_) | Expr::Test(_) | Expr::Compare(_) => expr(value),
        Expr::UnaryOp(op) if matches!(op.op, UnaryOpKind::Not) => expr(value),
        _ => through(HELD, value),
    }
}

/// Returns an item of a literal, converted to a list if it may be lazily computed.
fn listed<'a>(value: &Expr<'a>) -> Expr<'a> {
    match value {
        Expr::Const(_) | Expr::List(_) | Expr::Map(_) => expr(value),
        _ => through(LISTED, value),
    }
}

fn through<'a>(name: &'static str, value: &Expr<'a>) -> Expr<'a> {
    let filter = ast::Filter { name, expr: Some(expr(value)), args: Vec::new() };
    Expr::Filter(Spanned::new(filter, value.span()))
}

/// Returns an expression whose parts are checked.
fn expr<'a>(value: &Expr<'a>) -> Expr<'a> {
    let span = value.span();
    let maybe = |part: &Option<Expr<'a>>| part.as_ref().map(expr);
    let items = |parts: &[Expr<'a>]| parts.iter().map(listed).collect();
    match value {
        Expr::Var(e) => Expr::Var(Spanned::new(ast::Var { id: e.id }, span)),
        Expr::Const(e) => Expr::Const(Spanned::new(ast::Const { value: e.value.clone() }, span)),
        Expr::Slice(e) => {
            let (start, stop, step) = (maybe(&e.start), maybe(&e.stop), maybe(&e.step));
            Expr::Slice(Spanned::new(ast::Slice { expr: expr(&e.expr), start, stop, step }, span))
        }
        Expr::UnaryOp(e) => {
            #[expect(clippy::needless_match, reason = "the kind is not Copy")]
            let op = match e.op {
                UnaryOpKind::Not => UnaryOpKind::Not,
                UnaryOpKind::Neg => UnaryOpKind::Neg,
            };
            Expr::UnaryOp(Spanned::new(ast::UnaryOp { op, expr: expr(&e.expr) }, span))
        }
        Expr::BinOp(e) => {
            let side = match e.op {
                BinOpKind::ScAnd | BinOpKind::ScOr => expr,
                _ => held,
            };
            let (left, right) = (side(&e.left), side(&e.right));
            Expr::BinOp(Spanned::new(ast::BinOp { op: e.op, left, right }, span))
        }
        Expr::Compare(e) => {
            let op = |op: &ast::CompareOp<'a>| ast::CompareOp { op: op.op, expr: held(&op.expr) };
            let ops = e.ops.iter().map(op).collect();
            Expr::Compare(Spanned::new(ast::Compare { expr: held(&e.expr), ops }, span))
        }
        Expr::IfExpr(e) => {
            let (test_expr, true_expr) = (expr(&e.test_expr), expr(&e.true_expr));
            let false_expr = maybe(&e.false_expr);
            Expr::IfExpr(Spanned::new(ast::IfExpr { test_expr, true_expr, false_expr }, span))
        }
        Expr::Filter(e) => {
            let (name, args) = (e.name, arguments(&e.args));
            let expr = e.expr.as_ref().map(held);
            Expr::Filter(Spanned::new(ast::Filter { name, expr, args }, span))
        }
        Expr::Test(e) => {
            let (name, expr, args) = (e.name, held(&e.expr), arguments(&e.args));
            Expr::Test(Spanned::new(ast::Test { name, expr, args }, span))
        }
        Expr::GetAttr(e) => {
            let (name, expr) = (e.name, expr(&e.expr));
            Expr::GetAttr(Spanned::new(ast::GetAttr { expr, name }, span))
        }
        Expr::GetItem(e) => {
            let (expr, subscript_expr) = (expr(&e.expr), held(&e.subscript_expr));
            Expr::GetItem(Spanned::new(ast::GetItem { expr, subscript_expr }, span))
        }
        Expr::Call(e) => Expr::Call(Spanned::new(call(e), span)),
        Expr::List(e) => Expr::List(Spanned::new(ast::List { items: items(&e.items) }, span)),
        Expr::Tuple(e) => Expr::Tuple(Spanned::new(ast::Tuple { items: items(&e.items) }, span)),
        Expr::Map(e) => {
            let (keys, values) = (items(&e.keys), items(&e.values));
            Expr::Map(Spanned::new(ast::Map { keys, values }, span))
        }
    }
}

fn call<'a>(e: &ast::Call<'a>) -> ast::Call<'a> {
    // The receiver of a method is one of its arguments.
    let callee = match &e.expr {
        Expr::GetAttr(method) => {
            let attr = ast::GetAttr { expr: held(&method.expr), name: method.name };
            Expr::GetAttr(Spanned::new(attr, method.span()))
        }
        other => expr(other),
    };
    ast::Call { expr: callee, args: arguments(&e.args) }
}

fn arguments<'a>(args: &[CallArg<'a>]) -> Vec<CallArg<'a>> {
    let argument = |arg: &CallArg<'a>| match arg {
        CallArg::Pos(value) => CallArg::Pos(held(value)),
        CallArg::Kwarg(name, value) => CallArg::Kwarg(name, held(value)),
        CallArg::PosSplat(value) => CallArg::PosSplat(held(value)),
        CallArg::KwargSplat(value) => CallArg::KwargSplat(held(value)),
    };
    args.iter().map(argument).collect()
}
