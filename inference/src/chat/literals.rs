//! Lists that a template writes out and repeats, which minijinja would compute before a rendering has fuel.
//! In: a template's syntax tree. Out: an error if a list literal is repeated.
//! minijinja folds constants while it compiles, lists without bound: `[1] * 100000000 + …` or its text.

use minijinja::machinery::ast::{BinOpKind, Call, CallArg, Expr, Macro, Stmt};
use minijinja::{Error, ErrorKind};

/// # Errors
/// If a list or tuple literal, or a sum of them, is multiplied; published templates have no such thing.
pub(super) fn check(tree: &Stmt<'_>) -> Result<(), Error> {
    match tree {
        Stmt::Template(it) => all(&it.children),
        Stmt::EmitExpr(it) => expression(&it.expr),
        Stmt::ForLoop(it) => {
            expression(&it.iter)?;
            it.filter_expr.iter().try_for_each(expression)?;
            all(&it.body)?;
            all(&it.else_body)
        }
        Stmt::IfCond(it) => {
            expression(&it.expr)?;
            all(&it.true_body)?;
            all(&it.false_body)
        }
        Stmt::WithBlock(it) => {
            it.assignments
                .iter()
                .try_for_each(|(_, value)| expression(value))?;
            all(&it.body)
        }
        Stmt::Set(it) => expression(&it.expr),
        Stmt::SetBlock(it) => {
            it.filter.iter().try_for_each(expression)?;
            all(&it.body)
        }
        Stmt::AutoEscape(it) => {
            expression(&it.enabled)?;
            all(&it.body)
        }
        Stmt::FilterBlock(it) => {
            expression(&it.filter)?;
            all(&it.body)
        }
        Stmt::Macro(it) => macro_(it),
        Stmt::CallBlock(it) => {
            call(&it.call)?;
            macro_(&it.macro_decl)
        }
        Stmt::Do(it) => call(&it.call),
        Stmt::EmitRaw(_) | Stmt::Continue(_) | Stmt::Break(_) => Ok(()),
    }
}

fn all(statements: &[Stmt<'_>]) -> Result<(), Error> {
    statements.iter().try_for_each(check)
}

fn macro_(it: &Macro<'_>) -> Result<(), Error> {
    it.defaults.iter().try_for_each(expression)?;
    all(&it.body)
}

fn call(it: &Call<'_>) -> Result<(), Error> {
    expression(&it.expr)?;
    arguments(&it.args)
}

fn arguments(arguments: &[CallArg<'_>]) -> Result<(), Error> {
    arguments.iter().try_for_each(|argument| match argument {
        CallArg::Pos(it)
        | CallArg::Kwarg(_, it)
        | CallArg::PosSplat(it)
        | CallArg::KwargSplat(it) => expression(it),
    })
}

fn expression(tree: &Expr<'_>) -> Result<(), Error> {
    match tree {
        Expr::Var(_) | Expr::Const(_) => Ok(()),
        Expr::Slice(it) => {
            expression(&it.expr)?;
            let bounds = [&it.start, &it.stop, &it.step];
            bounds.into_iter().flatten().try_for_each(expression)
        }
        Expr::UnaryOp(it) => expression(&it.expr),
        Expr::BinOp(it) => {
            let repeats = matches!(it.op, BinOpKind::Mul);
            if repeats && (is_list(&it.left) || is_list(&it.right)) {
                let detail = format!("line {}: a list literal is repeated", it.span().start_line);
                return Err(Error::new(ErrorKind::SyntaxError, detail));
            }
            expression(&it.left)?;
            expression(&it.right)
        }
        Expr::Compare(it) => {
            expression(&it.expr)?;
            it.ops.iter().try_for_each(|op| expression(&op.expr))
        }
        Expr::IfExpr(it) => {
            expression(&it.test_expr)?;
            expression(&it.true_expr)?;
            it.false_expr.iter().try_for_each(expression)
        }
        Expr::Filter(it) => {
            it.expr.iter().try_for_each(expression)?;
            arguments(&it.args)
        }
        Expr::Test(it) => {
            expression(&it.expr)?;
            arguments(&it.args)
        }
        Expr::GetAttr(it) => expression(&it.expr),
        Expr::GetItem(it) => {
            expression(&it.expr)?;
            expression(&it.subscript_expr)
        }
        Expr::Call(it) => call(it),
        Expr::List(it) => it.items.iter().try_for_each(expression),
        Expr::Tuple(it) => it.items.iter().try_for_each(expression),
        Expr::Map(it) => it.keys.iter().chain(&it.values).try_for_each(expression),
    }
}

/// Whether constant folding could make a list of it.
fn is_list(tree: &Expr<'_>) -> bool {
    match tree {
        Expr::List(_) | Expr::Tuple(_) => true,
        Expr::BinOp(it) => is_list(&it.left) || is_list(&it.right),
        _ => false,
    }
}
