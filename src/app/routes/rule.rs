//! What a route's parameter must be like, made ready to judge values. Not here: where a value came from.

use super::value::{Complaint, Value};
use crate::config::{Param, ParamKind, Scalar};
use regex::{Regex, RegexBuilder};
use std::cmp::Ordering;

/// How much memory a compiled pattern may take, and again its cache: a pattern is the operator's own, a text is not.
const MAX_PATTERN: usize = 256 * 1024;

pub(super) struct Rule {
    pub(super) param: Param,
    pattern: Option<Regex>,
}

impl Rule {
    /// Fails where the pattern is none, or the default is not what it should be.
    pub(super) fn new(param: Param) -> Result<Rule, String> {
        let pattern = param.pattern.as_deref().map(compile).transpose();
        let pattern = pattern.map_err(|reason| format!("params.{}.pattern: {reason}", param.name))?;
        let rule = Rule { param, pattern };
        let Param { name, min, max, default, one_of, .. } = &rule.param;
        if let (Some(min), Some(max)) = (min, max)
            && order(&min.into(), max) == Some(Ordering::Greater)
        {
            return Err(format!("params.{name}: min is greater than max"));
        }
        for scalar in default.iter().chain(one_of) {
            if let Err(complaint) = rule.judge(scalar.into()) {
                return Err(format!("params.{name}: {} {complaint}", show(scalar)));
            }
        }
        Ok(rule)
    }

    /// The value, if it is allowed.
    pub(super) fn judge(&self, value: Value) -> Result<Value, Complaint> {
        let Param { required, min, max, max_length, one_of, .. } = &self.param;
        if value == Value::Null {
            return if *required { Err("must not be null".into()) } else { Ok(value) };
        }
        if let Some(min) = min
            && order(&value, min) == Some(Ordering::Less)
        {
            return Err(format!("must be at least {}", show(min)).into());
        }
        if let Some(max) = max
            && order(&value, max) == Some(Ordering::Greater)
        {
            return Err(format!("must be at most {}", show(max)).into());
        }
        if let Value::Text(text) = &value {
            if let Some(max) = max_length
                && text.chars().nth(*max).is_some()
            {
                return Err(format!("must be at most {max} characters long").into());
            }
            if let Some(pattern) = &self.pattern
                && !pattern.is_match(text)
            {
                return Err(format!("must match {pattern}").into());
            }
        }
        if !one_of.is_empty() && !one_of.iter().any(|allowed| Value::from(allowed) == value) {
            let allowed: Vec<String> = one_of.iter().map(show).collect();
            return Err(format!("must be one of {}", allowed.join(", ")).into());
        }
        Ok(value)
    }

    /// What stands for a value that was not given.
    pub(super) fn absent(&self) -> Result<Value, Complaint> {
        match &self.param.default {
            Some(default) => Ok(default.into()),
            None if self.param.required => Err(missing(self.param.kind).into()),
            None => Ok(Value::Null),
        }
    }
}

fn compile(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(pattern).size_limit(MAX_PATTERN).dfa_size_limit(MAX_PATTERN).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(limit) => format!("{pattern:?} would take more than {limit} bytes"),
        // Its text draws an arrow below the pattern; the last line is the reason.
        error => format!(
            "{pattern:?}: {}",
            error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ")
        ),
    })
}

/// How a number stands to a limit of its kind.
fn order(value: &Value, limit: &Scalar) -> Option<Ordering> {
    match (value, limit) {
        (Value::Integer(value), Scalar::Integer(limit)) => Some(value.cmp(limit)),
        (Value::Number(value), Scalar::Number(limit)) => value.as_f64().partial_cmp(limit),
        (_, _) => None,
    }
}

fn show(scalar: &Scalar) -> String {
    match scalar {
        Scalar::Integer(integer) => integer.to_string(),
        Scalar::Number(number) => number.to_string(),
        Scalar::Text(text) => text.clone(),
        Scalar::Boolean(boolean) => boolean.to_string(),
    }
}

fn missing(kind: ParamKind) -> &'static str {
    match kind {
        ParamKind::Integer => "is missing: an integer",
        ParamKind::Number => "is missing: a number",
        ParamKind::Text => "is missing: a string",
        ParamKind::Boolean => "is missing: true or false",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ParamKind::{Integer, Number, Text};

    fn rule(kind: ParamKind, change: impl FnOnce(&mut Param)) -> Rule {
        Rule::new(param(kind, change)).unwrap()
    }

    fn param(kind: ParamKind, change: impl FnOnce(&mut Param)) -> Param {
        let mut param = Param::new("a", kind);
        change(&mut param);
        param
    }

    #[test]
    fn values_are_judged() {
        let price = || {
            rule(Integer, |param| {
                (param.min, param.max) = (Some(Scalar::Integer(0)), Some(Scalar::Integer(9)))
            })
        };
        let share = || rule(Number, |param| param.max = Some(Scalar::Number(0.5)));
        let name = || {
            rule(Text, |param| {
                (param.max_length, param.pattern) = (Some(3), Some("^[a-zä]+$".into()));
            })
        };
        let size =
            || rule(Text, |param| param.one_of = vec![Scalar::Text("s".into()), Scalar::Text("m".into())]);
        let maybe = || rule(Integer, |param| (param.required, param.min) = (false, Some(Scalar::Integer(1))));
        let table = [
            (price(), "0", Ok(())),
            (price(), "9", Ok(())),
            (price(), "-1", Err("must be at least 0")),
            (price(), "10", Err("must be at most 9")),
            (price(), "null", Err("must not be null")),
            (share(), "0.5", Ok(())),
            (share(), "0.6", Err("must be at most 0.5")),
            (name(), "\"äää\"", Ok(())),
            (name(), "\"äääa\"", Err("must be at most 3 characters long")),
            (name(), "\"a1\"", Err("must match ^[a-zä]+$")),
            (name(), "\"\"", Err("must match ^[a-zä]+$")),
            (name(), "\"a\\n\"", Err("must match ^[a-zä]+$")),
            (size(), "\"m\"", Ok(())),
            (size(), "\"xl\"", Err("must be one of s, m")),
            (maybe(), "null", Ok(())),
            (maybe(), "0", Err("must be at least 1")),
        ];
        for (rule, given, expected) in table {
            let value = Value::from_json(rule.param.kind, &serde_json::from_str(given).unwrap()).unwrap();
            let judged = rule.judge(value).map(drop);
            assert_eq!(judged, expected.map_err(Complaint::from), "{given}");
        }
    }

    #[test]
    fn what_is_absent_is_the_default_or_null_or_missing() {
        assert_eq!(rule(Integer, |_| {}).absent(), Err("is missing: an integer".into()));
        assert_eq!(rule(Integer, |param| param.required = false).absent(), Ok(Value::Null));
        let with_default = rule(Integer, |param| {
            (param.required, param.default) = (false, Some(Scalar::Integer(7)));
        });
        assert_eq!(with_default.absent(), Ok(Value::Integer(7)));
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        let table = [
            (
                param(Text, |param| param.pattern = Some("(".into())),
                "params.a.pattern: \"(\": unclosed group",
            ),
            (
                param(Text, |param| param.pattern = Some("(a{1000}){1000}".into())),
                "params.a.pattern: \"(a{1000}){1000}\" would take more than 262144 bytes",
            ),
            (
                param(Integer, |param| {
                    (param.min, param.max) = (Some(Scalar::Integer(2)), Some(Scalar::Integer(1)))
                }),
                "params.a: min is greater than max",
            ),
            (
                param(Text, |param| {
                    (param.required, param.max_length) = (false, Some(1));
                    param.default = Some(Scalar::Text("ab".into()));
                }),
                "params.a: ab must be at most 1 characters long",
            ),
        ];
        for (param, expected) in table {
            assert_eq!(Rule::new(param).map(drop), Err(expected.to_owned()));
        }
    }
}
