//! Values of the user's types in paths, queries and contents (feature `http-json`).

use serde::de::{Deserialize, DeserializeOwned};
use serde::ser::Serialize;
use serde_html_form::Deserializer as FormDeserializer;

use super::response::{JSON, OwnedResponse};
use super::server::{Answer, Answered, Exchange, Failure};
use super::status::StatusCode;

/// The type of forms, which queries are like.
const FORM: &str = "application/x-www-form-urlencoded";
/// A client is told this much of an error, which may have what it sent in it.
const LONGEST: usize = 256;

/// What a client is told that sent something wrong.
#[derive(serde::Serialize)]
struct Problem<'a> {
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

/// Typed values, by serde. What is wrong with one is told the client in JSON, with the place where
/// it is: `{"error":"invalid digit found in string","field":"id"}`.
impl<'e, S> Exchange<'e, S> {
    /// The parameters of the path as a value, most often a struct whose fields have their names.
    ///
    /// # Errors
    /// They are none: 400.
    pub fn bind_path<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        pairs.extend_pairs(self.params());
        read_form(pairs.finish().as_bytes(), StatusCode::BAD_REQUEST)
    }

    /// The query as a value, which is empty if there is none. A name that comes more than once is a
    /// list.
    ///
    /// # Errors
    /// It is none: 400.
    pub fn bind_query<T: Deserialize<'e>>(&self) -> Result<T, Failure> {
        read_form(self.query().unwrap_or_default().as_bytes(), StatusCode::BAD_REQUEST)
    }

    /// The content, a form (`application/x-www-form-urlencoded`), as a value.
    ///
    /// # Errors
    /// The content has another type: 415. It is not such a value: 422.
    pub fn bind_form<T: Deserialize<'e>>(&self) -> Result<T, Failure> {
        self.check_type("a form", |kind| kind == FORM)?;
        read_form(self.body(), StatusCode::UNPROCESSABLE_CONTENT)
    }

    /// The content, JSON, as a value, which may borrow from it.
    ///
    /// # Errors
    /// The content's type is not `application/json`, nor one that ends in `+json`: 415. It is not
    /// JSON: 400. It is not such a value: 422.
    pub fn bind_json<T: Deserialize<'e>>(&self) -> Result<T, Failure> {
        self.check_type("JSON", |kind| kind == JSON || kind.ends_with("+json"))?;
        let mut json = serde_json::Deserializer::from_slice(self.body());
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let status = match error.inner().is_data() {
                true => StatusCode::UNPROCESSABLE_CONTENT,
                false => StatusCode::BAD_REQUEST,
            };
            problem(status, &error.inner().to_string(), Some(&error.path().to_string()))
        })?;
        match json.end() {
            Ok(()) => Ok(value),
            Err(error) => Err(problem(StatusCode::BAD_REQUEST, &error.to_string(), None)),
        }
    }

    fn check_type(&self, what: &str, is: impl Fn(&str) -> bool) -> Result<(), Failure> {
        let value = self.field("Content-Type").unwrap_or_default();
        let kind = value.split(|byte| *byte == b';').next().unwrap_or_default();
        let kind = String::from_utf8_lossy(kind.trim_ascii()).to_ascii_lowercase();
        if is(&kind) {
            return Ok(());
        }
        let error = format!("the content is not {what}");
        Err(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, &error, None))
    }
}

impl<S> Answer<'_, S> {
    /// Sends it with this value as JSON.
    ///
    /// # Errors
    /// The value can't be JSON, such as a map whose keys are lists; nothing is sent.
    pub fn json_value<T: Serialize + ?Sized>(self, value: &T) -> Result<Answered, Failure> {
        let answered = self.json_written(|buffer| serde_json::to_writer(buffer, value))?;
        Ok(answered)
    }
}

impl OwnedResponse {
    /// Gives it this value as its content, as JSON.
    ///
    /// # Errors
    /// As for [`Answer::json_value`].
    pub fn json_value<T: Serialize + ?Sized>(self, value: &T) -> Result<Self, serde_json::Error> {
        let mut response = self.body(serde_json::to_vec(value)?);
        response.fields.push_valid("Content-Type", JSON.as_bytes());
        Ok(response)
    }
}

impl Failure {
    /// What is wrong with a value of the client's, as [`Exchange::bind_json`] tells it: 422, and
    /// which field it is, if it is one.
    ///
    /// ```
    /// use millstream::http::{Failure, StatusCode};
    ///
    /// fn check(title: &str) -> Result<(), Failure> {
    ///     match title.is_empty() {
    ///         true => Err(Failure::invalid("it is empty", Some("title"))),
    ///         false => Ok(()),
    ///     }
    /// }
    ///
    /// assert_eq!(check("").unwrap_err().status(), StatusCode::UNPROCESSABLE_CONTENT);
    /// ```
    pub fn invalid(error: &str, field: Option<&str>) -> Self {
        problem(StatusCode::UNPROCESSABLE_CONTENT, error, field)
    }
}

fn read_form<'d, T: Deserialize<'d>>(form: &'d [u8], status: StatusCode) -> Result<T, Failure> {
    let form = FormDeserializer::from_bytes(form);
    serde_path_to_error::deserialize(form).map_err(|error| {
        problem(status, &error.inner().to_string(), Some(&error.path().to_string()))
    })
}

/// Tells the client. The place may be the whole value, or not known.
fn problem(status: StatusCode, error: &str, place: Option<&str>) -> Failure {
    let field = place.filter(|place| ![".", "?"].contains(place)).map(shortened);
    let problem = Problem { error: shortened(error), field };
    match OwnedResponse::new(status).json_value(&problem) {
        Ok(response) => response.into(),
        Err(error) => error.into(),
    }
}

fn shortened(text: &str) -> &str {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
