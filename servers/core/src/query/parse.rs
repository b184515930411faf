//! From an expression to a query: every name is checked here, so that the search meets none it does
//! not know.

use lapwing_protocol::element::Type;
use lapwing_protocol::limits::EXPRESSION_BYTES_MAX;

use super::error::QueryError;
use super::limits::{COLUMNS_MAX, LIST_MAX, NESTING_MAX, STEPS_OF_PATH_MAX};
use super::literal::{Literal, expectation};
use super::moment;
use super::syntax::{Column, Condition, How, Name, Operator, Query, Step, Target, Window};
use super::token::{Placed, Token, tokens};
use super::vocabulary::{ANY_KIND, Common, Vocabulary};

/// Parses `expression`; times such as `15m` are before `now_ms`.
pub(super) fn parse(
    now_ms: u64,
    expression: &str,
    vocabulary: &Vocabulary,
) -> Result<Query, QueryError> {
    if expression.len() > EXPRESSION_BYTES_MAX {
        let message = format!("the expression is longer than {EXPRESSION_BYTES_MAX} bytes");
        return Err(QueryError::new(EXPRESSION_BYTES_MAX, message));
    }
    let tokens = tokens(expression)?;
    let end = expression.chars().count() + 1;
    Parser { now_ms, vocabulary, tokens, next: 0, end, nesting: 0 }.query()
}

struct Parser<'v> {
    now_ms: u64,
    vocabulary: &'v Vocabulary,
    tokens: Vec<Placed>,
    next: usize,
    end: usize,
    nesting: usize,
}

impl Parser<'_> {
    fn query(mut self) -> Result<Query, QueryError> {
        let how = How::Start(self.kind()?);
        let mut steps = vec![self.step(how)?];
        loop {
            let position = self.position();
            let how = match self.peek() {
                Some(Token::Symbol("->")) => How::Forward(self.target()?),
                Some(Token::Symbol("<-")) => How::Backward(self.target()?),
                _ => break,
            };
            if steps.len() >= STEPS_OF_PATH_MAX {
                let message = format!("a path has at most {STEPS_OF_PATH_MAX} steps");
                return Err(QueryError::new(position, message));
            }
            steps.push(self.step(how)?);
        }
        let mut query = Query { steps, window: None, show: Vec::new(), limit: None };
        self.clauses(&mut query)?;
        Ok(query)
    }

    fn step(&mut self, how: How) -> Result<Step, QueryError> {
        let condition = if self.take_word("where") {
            let kind = how.kind().map(str::to_owned);
            Some(self.any(kind.as_deref())?)
        } else {
            None
        };
        Ok(Step { how, condition })
    }

    fn kind(&mut self) -> Result<Option<String>, QueryError> {
        let (position, word) = self.word("a kind of element")?;
        if !self.vocabulary.is_kind(&word) {
            let message = format!("there is no kind `{word}`; expected a kind of element");
            let names = self.vocabulary.kind_names();
            return Err(QueryError::unknown((position, &word), message, names));
        }
        Ok((word != ANY_KIND).then_some(word))
    }

    /// What follows an arrow. A name that is a kind and a link is the kind.
    fn target(&mut self) -> Result<Target, QueryError> {
        self.next += 1;
        let (position, word) = self.word("a kind or a link")?;
        if self.vocabulary.is_kind(&word) {
            return Ok(Target::Kind((word != ANY_KIND).then_some(word)));
        }
        let links = self.vocabulary.link_names();
        if links.contains(word.as_str()) {
            return Ok(Target::Link(word));
        }
        let message = format!("there is no kind and no link `{word}`");
        let names = self.vocabulary.kind_names().chain(links);
        Err(QueryError::unknown((position, &word), message, names))
    }

    fn any(&mut self, kind: Option<&str>) -> Result<Condition, QueryError> {
        let mut conditions = vec![self.all(kind)?];
        while self.take_word("or") {
            conditions.push(self.all(kind)?);
        }
        Ok(if conditions.len() == 1 { conditions.remove(0) } else { Condition::Any(conditions) })
    }

    fn all(&mut self, kind: Option<&str>) -> Result<Condition, QueryError> {
        let mut conditions = vec![self.one(kind)?];
        while self.take_word("and") {
            conditions.push(self.one(kind)?);
        }
        Ok(if conditions.len() == 1 { conditions.remove(0) } else { Condition::All(conditions) })
    }

    fn one(&mut self, kind: Option<&str>) -> Result<Condition, QueryError> {
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            let message = format!("conditions nest at most {NESTING_MAX} deep");
            return Err(QueryError::new(self.position(), message));
        }
        let condition = if self.take_word("not") {
            Condition::Not(Box::new(self.one(kind)?))
        } else if self.take_symbol("(") {
            let inner = self.any(kind)?;
            self.expect_symbol(")")?;
            inner
        } else {
            self.comparison(kind)?
        };
        self.nesting -= 1;
        Ok(condition)
    }

    fn comparison(&mut self, kind: Option<&str>) -> Result<Condition, QueryError> {
        let (name, types) = self.name(kind)?;
        if self.take_word("is") {
            let is_not = self.take_word("not");
            self.expect_word("missing")?;
            let missing = Condition::Missing(name);
            return Ok(if is_not { Condition::Not(Box::new(missing)) } else { missing });
        }
        if self.take_word("not") {
            self.expect_word("in")?;
            let list = self.list(&name, &types)?;
            return Ok(Condition::Not(Box::new(Condition::In(name, list))));
        }
        if self.take_word("in") {
            let list = self.list(&name, &types)?;
            return Ok(Condition::In(name, list));
        }
        let operator = self.operator()?;
        let literal = self.literal(&name, if operator.is_of_text() { &[] } else { &types })?;
        Ok(Condition::Compare(name, operator, literal))
    }

    fn operator(&mut self) -> Result<Operator, QueryError> {
        let position = self.position();
        let found = match self.peek() {
            Some(Token::Symbol(symbol)) => (*symbol).to_owned(),
            Some(Token::Word(word)) => word.to_ascii_lowercase(),
            _ => String::new(),
        };
        if let Some((operator, _)) = Operator::ALL.iter().find(|(_, of)| *of == found) {
            self.next += 1;
            return Ok(*operator);
        }
        let expected = "expected = != < <= > >= contains startswith endswith matches in or is";
        let message = format!("{expected}, found {}", self.found());
        let names = ["contains", "startswith", "endswith", "matches", "missing"];
        Err(QueryError::unknown((position, &found), message, names))
    }

    fn list(&mut self, name: &Name, types: &[Type]) -> Result<Vec<Literal>, QueryError> {
        self.expect_symbol("(")?;
        let mut list = vec![self.literal(name, types)?];
        while self.take_symbol(",") {
            if list.len() >= LIST_MAX {
                let message = format!("a list has at most {LIST_MAX} values");
                return Err(QueryError::new(self.position(), message));
            }
            list.push(self.literal(name, types)?);
        }
        self.expect_symbol(")")?;
        Ok(list)
    }

    /// A value that fits one of `types`; none given means text.
    fn literal(&mut self, name: &Name, types: &[Type]) -> Result<Literal, QueryError> {
        let position = self.position();
        let text = match self.peek() {
            Some(Token::Word(text) | Token::Quoted(text)) => text.clone(),
            _ => return Err(self.expected("a value")),
        };
        self.next += 1;
        let literal = Literal::new(self.now_ms, text);
        let heading = name.heading();
        if matches!(name, Name::Common(Common::FirstSeen | Common::Changed | Common::Happened)) {
            if literal.moment_ms.is_none() {
                let message = format!(
                    "expected a time for {heading}, such as 24h or 2026-01-31T12:00:00Z, found `{}`",
                    literal.text
                );
                return Err(QueryError::new(position, message));
            }
        } else if !types.is_empty() && !types.iter().any(|it| literal.fits(*it)) {
            let wanted = types.first().map_or("a value", |it| expectation(*it));
            let message = format!("expected {wanted} for {heading}, found `{}`", literal.text);
            return Err(QueryError::new(position, message));
        }
        Ok(literal)
    }

    /// The name of a feature of `kind`, or of what every element has. A leading dot means the
    /// feature where both exist.
    fn name(&mut self, kind: Option<&str>) -> Result<(Name, Vec<Type>), QueryError> {
        let (position, word) = self.word("a feature")?;
        self.resolve(kind, (position, &word))
    }

    fn resolve(
        &self,
        kind: Option<&str>,
        (position, word): (usize, &str),
    ) -> Result<(Name, Vec<Type>), QueryError> {
        if let Some(common) = Common::named(word) {
            let value_type = match common {
                Common::Guid => Type::Ref,
                Common::Ended => Type::Bool,
                Common::FirstSeen | Common::Changed | Common::Happened => Type::Time,
                Common::Kind
                | Common::Label
                | Common::Machine
                | Common::Sensor
                | Common::Presence => Type::Text,
            };
            return Ok((Name::Common(common), vec![value_type]));
        }
        let feature = word.strip_prefix('.').unwrap_or(word);
        let types = self.vocabulary.feature_types(kind, feature);
        if types.is_empty() {
            let of = kind.map_or_else(|| "any kind".to_owned(), |kind| format!("`{kind}`"));
            let message = format!("`{feature}` is no feature of {of}");
            let features = self.vocabulary.models(kind).flat_map(|model| &model.features);
            let names = features.map(|feature| &*feature.name);
            let common = Common::ALL.iter().map(|(_, name)| *name);
            return Err(QueryError::unknown((position, feature), message, names.chain(common)));
        }
        Ok((Name::Feature(feature.to_owned()), types))
    }

    fn clauses(&mut self, query: &mut Query) -> Result<(), QueryError> {
        while let Some(token) = self.peek().cloned() {
            let position = self.position();
            let word = match token {
                Token::Word(word) => word.to_ascii_lowercase(),
                Token::Quoted(_) | Token::Symbol(_) => String::new(),
            };
            let is_again = match word.as_str() {
                "since" | "between" => query.window.is_some(),
                "show" => !query.show.is_empty(),
                "limit" => query.limit.is_some(),
                _ => {
                    let wanted = "expected ->, <-, where, since, between, show or limit";
                    let message = format!("{wanted}, found {}", self.found());
                    let names = ["where", "and", "or", "since", "between", "show", "limit"];
                    return Err(QueryError::unknown((position, &word), message, names));
                }
            };
            if is_again {
                let message = format!("the time, columns or limit are given twice: `{word}`");
                return Err(QueryError::new(position, message));
            }
            self.next += 1;
            match word.as_str() {
                "since" => query.window = Some(Window { from_ms: self.moment()?, to_ms: u64::MAX }),
                "between" => query.window = Some(self.between()?),
                "show" => query.show = self.columns(&query.steps)?,
                _ => query.limit = Some(self.limit()?),
            }
        }
        Ok(())
    }

    fn between(&mut self) -> Result<Window, QueryError> {
        let from_ms = self.moment()?;
        self.expect_word("and")?;
        let position = self.position();
        let to_ms = self.moment()?;
        if to_ms < from_ms {
            return Err(QueryError::new(position, "the end lies before the beginning"));
        }
        Ok(Window { from_ms, to_ms })
    }

    fn moment(&mut self) -> Result<u64, QueryError> {
        let position = self.position();
        let (Some(Token::Word(text)) | Some(Token::Quoted(text))) = self.peek().cloned() else {
            return Err(self.expected("a time, such as 24h or 2026-01-31T12:00:00Z"));
        };
        self.next += 1;
        if text == "now" {
            return Ok(self.now_ms);
        }
        moment::parse(self.now_ms, &text).ok_or_else(|| {
            let message =
                format!("expected a time, such as 24h or 2026-01-31T12:00:00Z, found `{text}`");
            QueryError::new(position, message)
        })
    }

    fn limit(&mut self) -> Result<u32, QueryError> {
        let (position, word) = self.word("a number of rows")?;
        word.parse().ok().filter(|limit| *limit > 0).ok_or_else(|| {
            QueryError::new(position, format!("expected a number of rows, found `{word}`"))
        })
    }

    fn columns(&mut self, steps: &[Step]) -> Result<Vec<Column>, QueryError> {
        let mut columns = Vec::new();
        loop {
            let (position, word) = self.word("a column")?;
            if columns.len() >= COLUMNS_MAX {
                let message = format!("an answer has at most {COLUMNS_MAX} columns");
                return Err(QueryError::new(position, message));
            }
            columns.push(self.column(steps, (position, &word))?);
            if !self.take_symbol(",") {
                return Ok(columns);
            }
        }
    }

    /// `name` of the last step, or `step.name`, where the step is named by its kind, its link or
    /// its number from 1.
    fn column(
        &self,
        steps: &[Step],
        (position, word): (usize, &str),
    ) -> Result<Column, QueryError> {
        let last = steps.len() - 1;
        let (step, name) = match word.split_once('.') {
            Some((of, name)) if !of.is_empty() => {
                let step = steps
                    .iter()
                    .enumerate()
                    .find(|(number, step)| step_name(step) == of || of.parse() == Ok(number + 1));
                let Some((step, _)) = step else {
                    let message = format!("no step of the path is called `{of}`");
                    let names = steps.iter().map(step_name);
                    return Err(QueryError::unknown((position, of), message, names));
                };
                (step, name)
            }
            _ => (last, word),
        };
        let kind = steps.get(step).and_then(|step| step.how.kind());
        let (name, _) = self.resolve(kind, (position, name))?;
        let heading = if step == last { name.heading() } else { word.to_owned() };
        Ok(Column { step, name, heading })
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn position(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(position, _)| *position)
    }

    fn found(&self) -> String {
        match self.peek() {
            Some(Token::Word(text) | Token::Quoted(text)) => format!("`{text}`"),
            Some(Token::Symbol(symbol)) => format!("`{symbol}`"),
            None => "the end".to_owned(),
        }
    }

    fn expected(&self, wanted: &str) -> QueryError {
        QueryError::new(self.position(), format!("expected {wanted}, found {}", self.found()))
    }

    fn word(&mut self, wanted: &str) -> Result<(usize, String), QueryError> {
        let position = self.position();
        let Some(Token::Word(word)) = self.peek().cloned() else {
            return Err(self.expected(wanted));
        };
        self.next += 1;
        Ok((position, word))
    }

    fn take_word(&mut self, keyword: &str) -> bool {
        let is_it =
            matches!(self.peek(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword));
        self.next += usize::from(is_it);
        is_it
    }

    fn take_symbol(&mut self, wanted: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Token::Symbol(symbol)) if *symbol == wanted);
        self.next += usize::from(is_it);
        is_it
    }

    fn expect_word(&mut self, keyword: &str) -> Result<(), QueryError> {
        if self.take_word(keyword) { Ok(()) } else { Err(self.expected(keyword)) }
    }

    fn expect_symbol(&mut self, symbol: &str) -> Result<(), QueryError> {
        if self.take_symbol(symbol) { Ok(()) } else { Err(self.expected(symbol)) }
    }
}

fn step_name(step: &Step) -> &str {
    match &step.how {
        How::Forward(Target::Link(link)) | How::Backward(Target::Link(link)) => link,
        how => how.kind().unwrap_or(ANY_KIND),
    }
}
