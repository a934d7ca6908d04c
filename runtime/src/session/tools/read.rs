//! Reads calls one after another in each format.
//!
//! A call is read again from its start whenever more of its text arrives, so that streamed and
//! whole answers share the same code, and the output only grows. [`Reader::next`] parses the start
//! of a text inside a block of calls.

use serde_json::Value;

use super::cursor::{Cursor, Read, Stop, TOKEN};
use super::format::{Format, Tokens};
use super::offer::{MAX_NAME, Tools};
use super::{gemma, python, value};

/// A call, as far as it has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Partial {
    /// Identifier written by the model.
    pub id: Option<String>,
    /// Function name, complete if present.
    pub name: Option<String>,
    /// Arguments as JSON text.
    pub arguments: String,
}

/// An item in a block of calls.
pub(super) enum Item {
    /// A call.
    Call,
    /// The end of the block.
    End,
}

/// State of a block of calls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Block {
    /// Whether the block's own opening marker was read.
    pub opened: bool,
    /// Number of calls in the block so far.
    pub calls: usize,
}

/// Reads calls of one format.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub format: Format,
    pub tokens: Tokens,
}

impl Reader {
    /// Reads a call into `call`, or the end of the block.
    pub fn next(
        &self,
        text: &mut Cursor,
        block: &mut Block,
        tools: &Tools,
        call: &mut Partial,
    ) -> Read<Item> {
        match self.format {
            Format::DeepSeekV3 | Format::DeepSeekV31 => self.deepseek(text, block, call),
            Format::DeepSeekV32 => self.dsml(text, block, tools, call, "function_calls"),
            Format::DeepSeekV4 => self.dsml(text, block, tools, call, "tool_calls"),
            Format::Hermes => self.hermes(text, block, call),
            Format::QwenCoder => self.qwen_coder(text, block, tools, call),
            Format::Glm => self.glm(text, block, tools, call),
            Format::MiniMax => self.minimax(text, block, tools, call),
            Format::Kimi => self.kimi(text, block, call),
            Format::Harmony => self.harmony(text, block, call),
            Format::Gemma4 => self.gemma(text, block, call),
            Format::Lfm2 => self.lfm2(text, block, call),
            Format::Llama3 => self.llama(text, block, tools, call),
            Format::MistralNemo => self.mistral_nemo(text, block, call),
            Format::Mistral => self.mistral(text, block, call),
            Format::Generic => self.bare(text, block, tools, call),
        }
    }

    fn lit(&self, literal: &str) -> String {
        self.tokens.literal(literal)
    }

    /// `<｜tool▁calls▁begin｜>`, calls, `<｜tool▁calls▁end｜>`: the block's markers may be missing.
    fn deepseek(&self, text: &mut Cursor, block: &mut Block, call: &mut Partial) -> Read<Item> {
        if !block.opened {
            block.opened = true;
            text.take_any(&self.tokens.literals("<｜tool▁calls▁begin｜>"))?;
        }
        text.space();
        if block.calls > 0 && text.take_any(&self.tokens.literals("<｜tool▁calls▁end｜>"))? {
            return Ok(Item::End);
        }
        if !text.take_any(&self.tokens.literals("<｜tool▁call▁begin｜>"))? {
            return Err(Stop::Wrong("a call does not begin with its marker"));
        }
        let sep = self.tokens.literals("<｜tool▁sep｜>");
        let seps: Vec<&str> = sep.iter().map(String::as_str).collect();
        let head = text.until(&seps, MAX_NAME, "a call has no separator")?;
        let fenced = head.trim() == "function";
        match fenced {
            true => {
                call.name =
                    Some(name(text.until(&["\n"], MAX_NAME, "a call's name has no end")?)?)
            }
            false => call.name = Some(name(head)?),
        }
        text.space();
        let fence = text.take("```json")?;
        text.space();
        let end = self.tokens.literals("<｜tool▁call▁end｜>");
        // There are no arguments.
        if text.take_any(&end)? {
            call.arguments = "{}".into();
            return Ok(Item::Call);
        }
        object(text, &mut call.arguments)?;
        text.space();
        if fence {
            text.expect("```", "a call's fence does not end")?;
            text.space();
        }
        match text.take_any(&end)? {
            true => Ok(Item::Call),
            false => Err(Stop::Wrong("a call does not end after its arguments")),
        }
    }

    /// `<｜DSML｜invoke name="F">` with
    /// `<｜DSML｜parameter name="P" string="true">text</｜DSML｜parameter>`.
    fn dsml(
        &self,
        text: &mut Cursor,
        block: &mut Block,
        tools: &Tools,
        call: &mut Partial,
        outer: &str,
    ) -> Read<Item> {
        if !block.opened {
            text.expect(&self.lit(&format!("<｜DSML｜{outer}>")), "no calls begin here")?;
            block.opened = true;
        }
        text.space();
        if text.take(&self.lit(&format!("</｜DSML｜{outer}>")))? {
            return Ok(Item::End);
        }
        text.expect(&self.lit("<｜DSML｜invoke name=\""), "a call does not begin with its marker")?;
        let name = name(text.until(&["\">"], MAX_NAME, "a call's name has no end")?)?;
        call.name = Some(name.clone());
        let end = self.lit("</｜DSML｜parameter>");
        loop {
            text.space();
            if text.take(&self.lit("</｜DSML｜invoke>"))? {
                value::close(&mut call.arguments);
                return Ok(Item::Call);
            }
            text.expect(&self.lit("<｜DSML｜parameter name=\""), "a parameter does not begin")?;
            let key = text.until(&["\""], MAX_NAME, "a parameter's name has no end")?;
            text.space();
            let kind = match text.take("string=\"")? {
                true => match text.until(&["\""], 8, "`string` is neither true nor false")? {
                    "true" => value::Kind::Text,
                    _ => value::Kind::Json,
                },
                false => value::Kind::of(tools.argument(&name, key)),
            };
            text.space();
            text.expect(">", "a parameter's tag does not end")?;
            let nothing = |_: &mut Cursor| Ok(true);
            value::read(text, key, &kind, (&end, false), nothing, &mut call.arguments)?;
        }
    }

    /// `<tool_call>{"name": "F", "arguments": {..}}</tool_call>`.
    fn hermes(&self, text: &mut Cursor, block: &mut Block, call: &mut Partial) -> Read<Item> {
        if block.calls > 0 {
            return Ok(Item::End);
        }
        text.expect(&self.lit("<tool_call>"), "no call begins here")?;
        text.space();
        named_object(text, call)?;
        text.space();
        text.expect(&self.lit("</tool_call>"), "a call does not end after its object")?;
        Ok(Item::Call)
    }

    /// `<tool_call><function=F><parameter=P>value</parameter></function></tool_call>`.
    fn qwen_coder(
        &self,
        text: &mut Cursor,
        block: &mut Block,
        tools: &Tools,
        call: &mut Partial,
    ) -> Read<Item> {
        if block.calls > 0 {
            return Ok(Item::End);
        }
        text.expect(&self.lit("<tool_call>"), "no call begins here")?;
        text.space();
        text.expect("<function=", "a call names no function")?;
        let name = name(text.until(&[">"], MAX_NAME, "a call's name has no end")?)?;
        call.name = Some(name.clone());
        loop {
            text.space();
            if text.take("</function>")? {
                break;
            }
            text.expect("<parameter=", "a parameter does not begin")?;
            let key = text.until(&[">"], MAX_NAME, "a parameter's name has no end")?;
            text.take("\n")?;
            let kind = value::Kind::of(tools.argument(&name, key));
            // A value may contain the end marker itself: only after the true end marker does the
            // call continue.
            let follows = |text: &mut Cursor| {
                text.space();
                Ok(text.take("<parameter=")? || text.take("</function>")?)
            };
            value::read(text, key, &kind, ("</parameter>", true), follows, &mut call.arguments)?;
        }
        text.space();
        text.expect(&self.lit("</tool_call>"), "a call does not end after its function")?;
        value::close(&mut call.arguments);
        Ok(Item::Call)
    }

    /// `<tool_call>F<arg_key>k</arg_key><arg_value>v</arg_value></tool_call>`.
    fn glm(
        &self,
        text: &mut Cursor,
        block: &mut Block,
        tools: &Tools,
        call: &mut Partial,
    ) -> Read<Item> {
        if block.calls > 0 {
            return Ok(Item::End);
        }
        text.expect(&self.lit("<tool_call>"), "no call begins here")?;
        let (key_mark, end_mark) = (self.lit("<arg_key>"), self.lit("</tool_call>"));
        text.space();
        let mut after = *text;
        let head =
            after.until(&["\n", &key_mark, &end_mark], MAX_NAME, "a call's name has no end")?;
        let name = name(head)?;
        text.at += head.len();
        call.name = Some(name.clone());
        loop {
            text.space();
            if text.take(&end_mark)? {
                value::close(&mut call.arguments);
                return Ok(Item::Call);
            }
            text.expect(&key_mark, "an argument does not begin")?;
            let key =
                text.until(&[&self.lit("</arg_key>")], MAX_NAME, "an argument's name has no end")?;
            text.space();
            text.expect(&self.lit("<arg_value>"), "an argument has no value")?;
            let kind = value::Kind::of(tools.argument(&name, key.trim()));
            let end = self.lit("</arg_value>");
            let follows = |text: &mut Cursor| {
                text.space();
                Ok(text.take(&key_mark)? || text.take(&end_mark)?)
            };
            value::read(text, key.trim(), &kind, (&end, false), follows, &mut call.arguments)?;
        }
    }

    /// `<minimax:tool_call>`, calls as `<invoke name="F">` with
    /// `<parameter name="P">value</parameter>`, `</minimax:tool_call>`.
    fn minimax(
        &self,
        text: &mut Cursor,
        block: &mut Block,
        tools: &Tools,
        call: &mut Partial,
    ) -> Read<Item> {
        const PARAMETER: &str = "<parameter name=\"";
        if !block.opened {
            text.expect(&self.lit("<minimax:tool_call>"), "no calls begin here")?;
            block.opened = true;
        }
        text.space();
        if block.calls > 0 && text.take(&self.lit("</minimax:tool_call>"))? {
            return Ok(Item::End);
        }
        text.expect("<invoke name=\"", "a call does not begin with its marker")?;
        let name = name(text.until(&["\">"], MAX_NAME, "a call's name has no end")?)?;
        call.name = Some(name.clone());
        loop {
            text.space();
            if text.take("</invoke>")? {
                value::close(&mut call.arguments);
                return Ok(Item::Call);
            }
            text.expect(PARAMETER, "a parameter does not begin")?;
            let key = text.until(&["\">"], MAX_NAME, "a parameter's name has no end")?;
            let kind = value::Kind::of(tools.argument(&name, key));
            let follows = |text: &mut Cursor| {
                text.space();
                Ok(text.take(PARAMETER)? || text.take("</invoke>")?)
            };
            value::read(text, key, &kind, ("</parameter>", false), follows, &mut call.arguments)?;
        }
    }

    /// `<|tool_call_begin|>functions.F:0<|tool_call_argument_begin|>{..}<|tool_call_end|>` in a
    /// section.
    fn kimi(&self, text: &mut Cursor, block: &mut Block, call: &mut Partial) -> Read<Item> {
        if !block.opened {
            block.opened = true;
            text.take(&self.lit("<|tool_calls_section_begin|>"))?;
        }
        text.space();
        if block.calls > 0 && text.take(&self.lit("<|tool_calls_section_end|>"))? {
            return Ok(Item::End);
        }
        text.expect(&self.lit("<|tool_call_begin|>"), "a call does not begin with its marker")?;
        let sep = self.lit("<|tool_call_argument_begin|>");
        let id = text.until(&[&sep], MAX_NAME, "a call's identifier has no end")?.trim();
        let called = id.strip_prefix("functions.").unwrap_or(id);
        call.name = Some(name(called.rsplit_once(':').map_or(called, |(name, _)| name))?);
        call.id = Some(id.into());
        text.space();
        let end = self.lit("<|tool_call_end|>");
        if text.take(&end)? {
            call.arguments = "{}".into();
            return Ok(Item::Call);
        }
        object(text, &mut call.arguments)?;
        text.space();
        text.expect(&end, "a call does not end after its arguments")?;
        Ok(Item::Call)
    }

    /// A message whose header has `to=functions.F`; its text is the arguments.
    fn harmony(&self, text: &mut Cursor, block: &mut Block, call: &mut Partial) -> Read<Item> {
        if block.calls > 0 {
            // If this is a token that ends the turn, it does not arrive.
            text.take_any(&["<|call|>", "<|end|>"].map(String::from))?;
            return Ok(Item::End);
        }
        const MOST: usize = 512;
        let header = text.until(&["<|message|>"], MOST, "a message's header has no end")?;
        let (_, to) = header.split_once("to=").ok_or(Stop::Wrong("a message is to no function"))?;
        let to = to.split(['<', ' ', '\n']).next().unwrap_or_default();
        call.name = Some(name(to.strip_prefix("functions.").unwrap_or(to))?);
        text.space();
        object(text, &mut call.arguments)?;
        Ok(Item::Call)
    }

    /// `<|tool_call>call:F{a:<|"|>x<|"|>,b:1}<tool_call|>`.
    fn gemma(&self, text: &mut Cursor, block: &mut Block, call: &mut Partial) -> Read<Item> {
        if block.calls > 0 {
            return Ok(Item::End);
        }
        text.expect(&self.lit("<|tool_call>"), "no call begins here")?;
        gemma::call(text, &self.lit(gemma::QUOTE), call)?;
        text.expect(&self.lit("<tool_call|>"), "a call does not end after its arguments")?;
        Ok(Item::Call)
    }

    /// `<|tool_call_start|>[f(a="x"), g()]<|tool_call_end|>`.
    fn lfm2(&self, text: &mut Cursor, block: &mut Block, call: &mut Partial) -> Read<Item> {
        if !block.opened {
            text.expect(&self.lit("<|tool_call_start|>"), "no calls begin here")?;
            text.space();
            text.expect("[", "a list of calls is missing")?;
            block.opened = true;
        }
        text.space();
        if text.take("]")? {
            text.space();
            text.expect(&self.lit("<|tool_call_end|>"), "a list of calls has no end")?;
            return Ok(Item::End);
        }
        if block.calls > 0 {
            text.expect(",", "calls are not separated")?;
            text.space();
        }
        python::call(text, call)?;
        Ok(Item::Call)
    }

    /// `{"name": "F", "parameters": {..}}` as the whole answer or after `<|python_tag|>`, and
    /// `<function=F>{..}</function>`.
    fn llama(
        &self,
        text: &mut Cursor,
        block: &mut Block,
        tools: &Tools,
        call: &mut Partial,
    ) -> Read<Item> {
        let tag = self.lit("<|python_tag|>");
        if block.calls == 0 && text.take("<function=")? {
            call.name = Some(name(text.until(&[">"], MAX_NAME, "a call's name has no end")?)?);
            text.space();
            object(text, &mut call.arguments)?;
            text.space();
            text.expect("</function>", "a call does not end after its arguments")?;
            return Ok(Item::Call);
        }
        if block.calls == 0 && text.take(&tag)? {
            text.space();
            if !text.rest().is_empty() && !text.rest().starts_with('{') {
                python::built_in(text, call)?;
                return Ok(Item::Call);
            }
        }
        self.bare(text, block, tools, call)
    }

    /// Objects that form the answer, separated by `;`.
    fn bare(
        &self,
        text: &mut Cursor,
        block: &mut Block,
        tools: &Tools,
        call: &mut Partial,
    ) -> Read<Item> {
        text.space();
        if block.calls > 0 {
            if text.rest().is_empty() {
                return Err(Stop::More);
            }
            text.take(";")?;
            text.space();
            if !text.rest().starts_with('{') {
                return if text.rest().is_empty() { Err(Stop::More) } else { Ok(Item::End) };
            }
        }
        let mut found = Partial::default();
        let read = named_object(text, &mut found);
        // Any JSON may have a name: it is a call only if the name is that of a tool.
        match &found.name {
            Some(name) if !tools.is_empty() && tools.get(name).is_none() => {
                return Err(Stop::Wrong("an object names no tool"));
            }
            _ => *call = found,
        }
        read.map(|()| Item::Call)
    }

    /// `[TOOL_CALLS][{"name": "F", "arguments": {..}, "id": ".."}, ..]`.
    fn mistral_nemo(&self, text: &mut Cursor, block: &mut Block, call: &mut Partial) -> Read<Item> {
        if !block.opened {
            text.expect(&self.lit("[TOOL_CALLS]"), "no calls begin here")?;
            text.space();
            text.expect("[", "a list of calls is missing")?;
            block.opened = true;
        }
        text.space();
        if text.take("]")? {
            return Ok(Item::End);
        }
        if block.calls > 0 {
            text.expect(",", "calls are not separated")?;
            text.space();
        }
        named_object(text, call)?;
        Ok(Item::Call)
    }

    /// `[TOOL_CALLS]F[ARGS]{..}`, in some models with `[CALL_ID]ID` after the name.
    fn mistral(&self, text: &mut Cursor, block: &mut Block, call: &mut Partial) -> Read<Item> {
        if block.calls > 0 {
            return Ok(Item::End);
        }
        text.expect(&self.lit("[TOOL_CALLS]"), "no call begins here")?;
        text.space();
        let ends = [self.lit("[ARGS]"), self.lit("[CALL_ID]")];
        let mut head = *text;
        let found = head.until(&[&ends[0], &ends[1]], MAX_NAME, "a call's name has no end")?;
        text.at += found.len();
        if text.take(&ends[1])? {
            let id = text.until(&[&ends[0]], MAX_NAME, "a call's identifier has no end")?;
            call.id = Some(id.trim().into());
        } else {
            text.at = head.at;
        }
        call.name = Some(name(found)?);
        text.space();
        object(text, &mut call.arguments)?;
        Ok(Item::Call)
    }
}

/// Reads a valid function name.
pub(super) fn name(text: &str) -> Read<String> {
    let name = text.trim();
    let allowed = |c: char| c.is_alphanumeric() || "_-.:/".contains(c);
    match !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(allowed) {
        true => Ok(name.into()),
        false => Err(Stop::Wrong("a call's name is not one of a function")),
    }
}

/// Reads an object into `out`.
fn object(text: &mut Cursor, out: &mut String) -> Read<()> {
    match text.rest().trim_start_matches(TOKEN).chars().next() {
        Some('{') => text.json(out),
        None => Err(Stop::More),
        Some(_) => Err(Stop::Wrong("its arguments are not an object")),
    }
}

/// Reads an object with `name` and `arguments` or `parameters`.
fn named_object(text: &mut Cursor, call: &mut Partial) -> Read<()> {
    text.expect("{", "a call is not an object")?;
    // Arguments that precede the name are held until the name is read.
    let (mut name_read, mut arguments) = (None, None::<String>);
    loop {
        text.space();
        if text.take("}")? {
            break;
        }
        if text.take(",")? {
            text.space();
        }
        let key = text.json_text()?;
        text.space();
        text.expect(":", "a key has no value")?;
        text.space();
        match key.as_str() {
            "name" => {
                let read = name(&text.json_text()?)?;
                call.name = Some(read.clone());
                name_read = Some(read);
                if let Some(waiting) = &arguments {
                    call.arguments.clone_from(waiting);
                }
            }
            "arguments" | "parameters" => {
                let early = name_read.is_none();
                let mut waiting = String::new();
                let out = if early { &mut waiting } else { &mut call.arguments };
                match text.rest().chars().next() {
                    Some('{') => text.json(out)?,
                    Some('"') => {
                        // Some models write the object as a string.
                        let inner = text.json_text()?;
                        let object =
                            serde_json::from_str::<Value>(&inner).is_ok_and(|v| v.is_object());
                        match object {
                            true => out.push_str(&inner),
                            false => return Err(Stop::Wrong("its arguments are not an object")),
                        }
                    }
                    _ => match text.json_value()? {
                        Value::Null => out.push_str("{}"),
                        _ => return Err(Stop::Wrong("its arguments are not an object")),
                    },
                }
                arguments = Some(out.clone());
            }
            // Identifiers after the name are ignored: clients already know the call by then.
            "id" | "type" => drop(text.json_value()?),
            _ if name_read.is_none() => return Err(Stop::Wrong("an object is no call")),
            _ => drop(text.json_value()?),
        }
    }
    if name_read.is_none() {
        return Err(Stop::Wrong("a call has no name"));
    }
    if arguments.is_none() {
        call.arguments = "{}".into();
    }
    Ok(())
}
