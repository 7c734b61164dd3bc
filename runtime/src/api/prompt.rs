//! The lines of a prompt: each is a chunk of its own in one environment, an expression if it is one, else a statement.
//! The plain prompt and those that are attached to an instance evaluate here, and nowhere else.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use mlua::{Function, Lua, MultiValue, Table, Value};

use super::error::{from_lua, site_at};
use super::host::Host;
use super::limit::Endable;
use super::module::{Args, Module};
use super::vm::Vm;
use crate::error::Site;
use crate::hearer::{self, Said, Unheard};
use crate::{Error, Result};

/// How long completion may take: the person goes on typing.
const COMPLETION: Duration = Duration::from_millis(250);

/// What is said of a name that no line has given a value.
const NO_VALUE: &str = "give it a value first, `name = ...`: a `local` ends with its line";

/// The native half of `lua-stdlib/prompt.lua`.
pub fn module(lua: &Lua) -> mlua::Result<Table> {
    Module::new(lua, "_prompt")
        .function("is_heard", |_, _, _| Ok(hearer::current().is_some()))
        .function("say", say)
        .async_function("say_waiting", say_waiting)
        .build()
}

/// `say(text)`: whether the one who hears the task that calls has heard it: nil when nobody does, false when there is no
/// room yet.
fn say(_: &Lua, _: &Rc<Host>, mut args: Args) -> Result<Option<bool>> {
    let Some(hearer) = hearer::current() else { return Ok(None) };
    Ok(match hearer.hear_now(&Said::Out(text(&args.any()))) {
        Ok(()) => Some(true),
        Err(Unheard::Busy) => Some(false),
        Err(Unheard::Gone) => None,
    })
}

/// `say_waiting(text)` waits until there is room; whether it was heard.
fn say_waiting(
    _: &Lua,
    _: &Rc<Host>,
    mut args: Args,
) -> Result<impl Future<Output = Result<bool>> + use<>> {
    let said = Said::Out(text(&args.any()));
    let hearer = hearer::current();
    Ok(async move {
        match hearer {
            Some(hearer) => Ok(hearer.hear(said).await),
            None => Ok(false),
        }
    })
}

fn text(value: &Value) -> String {
    value.as_string().map_or_else(String::new, |text| text.to_string_lossy())
}

/// One prompt in one VM, which must be let go before its VM is closed.
pub struct Prompt {
    environment: Table,
    complete: Function,
    results: Function,
}

impl Prompt {
    /// The one of a VM that has no script: all that is printed goes through `print`.
    pub fn alone(vm: &Vm, print: impl Fn(&str) + 'static) -> Result<Prompt> {
        Prompt::new(vm, |lua, prompt, environment| {
            let print = lua.create_function(move |_, text: mlua::LuaString| {
                print(&text.to_string_lossy());
                Ok(())
            })?;
            prompt.get::<Function>("install")?.call((environment, print))
        })
    }

    /// One of several in the VM of a script. What its lines print goes to their [`hearer`], what the script prints goes
    /// where it went.
    pub fn attached(vm: &Vm) -> Result<Prompt> {
        Prompt::new(vm, |_, prompt, environment| {
            prompt.get::<Function>("attach")?.call(environment)
        })
    }

    fn new(
        vm: &Vm,
        install: impl FnOnce(&Lua, &Table, &Table) -> mlua::Result<()>,
    ) -> Result<Prompt> {
        let environment = vm.interactive_environment(NO_VALUE)?;
        let build = || -> mlua::Result<Prompt> {
            let lua = vm.lua();
            let prompt: Table =
                lua.load("return require 'cnf'._prompt").set_name("=[cnf]").call(())?;
            install(lua, &prompt, &environment)?;
            Ok(Prompt {
                complete: prompt.get("complete")?,
                results: prompt.get("results")?,
                environment,
            })
        };
        build().map_err(from_lua)
    }

    /// Runs a line; the text of its results, for a terminal of `width` columns. `name` is what errors call the line.
    ///
    /// # Errors
    /// What the line raised, or what is wrong with it.
    pub async fn evaluate(
        &self,
        vm: &Vm,
        name: &str,
        line: &str,
        width: i64,
        endable: &Endable,
    ) -> Result<Option<String>> {
        let function = self.compile(vm, name, line)?;
        let run = async {
            let results = vm.run_endable(function, MultiValue::new(), endable).await;
            // A line that is one call of the library's Lua is a tail call, which leaves no frame to be found.
            let results = results.map_err(|error| error.at(only_line(name, line)))?;
            let mut call = MultiValue::from_iter([
                Value::Table(self.environment.clone()),
                Value::Integer(width),
            ]);
            call.extend(results);
            // `__tostring` of a script's own may wait, loop or fail like any other Lua.
            vm.run_endable(self.results.clone(), call, endable).await
        };
        let text = super::task::ends_what_waits(run).await?;
        Ok(match text.front() {
            Some(Value::String(text)) => Some(text.to_string_lossy()),
            _ => None,
        })
    }

    /// An expression if it is one, else a statement.
    fn compile(&self, vm: &Vm, name: &str, line: &str) -> Result<Function> {
        let compile =
            |text: &str| vm.compile(name, text.as_bytes(), Some(self.environment.clone()));
        let expression = compile(&format!("return {line}"));
        let statement = match expression {
            Ok(_) => None,
            Err(_) => Some(compile(line)),
        };
        // Errors show the line as it was typed.
        super::source::keep(name, line.as_bytes());
        match statement {
            None => expression,
            // A complaint about the very first word tells less than what is wrong with the expression.
            Some(Err(error)) if complains_about_start(&error, line) => {
                expression.map_err(|wrong| error.because(wrong.message()))
            }
            Some(statement) => statement,
        }
    }

    /// What could stand at the end of `line`: where the word starts, in bytes, and the words. What a script has put behind
    /// `__index` may run for it, but not for long.
    ///
    /// # Errors
    /// What went wrong there.
    pub async fn complete(&self, vm: &Vm, line: &str) -> Result<(usize, Vec<String>)> {
        let text = vm.lua().create_string(line).map_err(from_lua)?;
        let call =
            MultiValue::from_iter([Value::Table(self.environment.clone()), Value::String(text)]);
        let endable = Endable::within(COMPLETION);
        let found = vm.run_endable(self.complete.clone(), call, &endable);
        let mut found = tokio::time::timeout(COMPLETION, found)
            .await
            .map_err(|_| Error::new("complete", "ETIMEDOUT", "it takes too long"))??;
        let at = found.pop_front().and_then(|at| at.as_usize()).unwrap_or(line.len());
        let words = match found.pop_front() {
            Some(Value::Table(words)) => words.sequence_values().flatten().collect(),
            _ => Vec::new(),
        };
        Ok((at, words))
    }
}

/// Where a line that is one line is; of several nobody knows which.
fn only_line(name: &str, line: &str) -> Option<Site> {
    (!line.trim_end().contains('\n')).then(|| site_at(name, 1))
}

fn complains_about_start(error: &Error, line: &str) -> bool {
    let message = error.message();
    let near = message.rsplit_once("near '").map(|(_, near)| near.trim_end_matches('\''));
    near.is_some_and(|near| line.trim_start().starts_with(near))
}
