//! `POST /rpc/SERVICE/METHOD` calls a method: the content is the JSON array of its arguments, the
//! response is its value.
//!
//! The call goes by an RPC client, also if the service is in this process: so deadlines, limits and
//! layers are those of every other call, an answer may come later and from any thread, and services
//! elsewhere are called in the same way. The JSON is passed on as it is.

use millstream::http::{Answered, Exchange, Failure, OwnedResponse, StatusCode};
use millstream::rpc::{Code, Encoding, Request, Response, Status};

use crate::Running;

/// What serves the paths.
pub(crate) fn handler(
    running: Running,
) -> impl FnMut(Exchange<'_>) -> Result<Answered, Failure> + 'static {
    move |exchange| {
        let Some(method) = exchange.path().strip_prefix("/rpc/") else {
            return Err(StatusCode::NOT_FOUND.into());
        };
        if exchange.method() != "POST" {
            let answer = exchange.respond(StatusCode::METHOD_NOT_ALLOWED);
            return Ok(answer.field("Allow", "POST")?.empty());
        }
        let client = running.client().ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
        let request = Request::new(method.to_owned())
            .format(Encoding::Json.format())
            .body(exchange.body().to_vec());
        let (responder, answered) = exchange.later();
        client.call_then(request, move |outcome| responder.send(response(outcome)));
        Ok(answered)
    }
}

fn response(outcome: Result<Response, Status>) -> OwnedResponse {
    match outcome {
        Ok(response) => json(StatusCode::OK, response.body.to_vec()),
        Err(status) => {
            let error = serde_json::json!({
                "code": status.code().name(),
                "message": status.message(),
            });
            json(http_status(status.code()), error.to_string().into_bytes())
        }
    }
}

fn json(status: StatusCode, body: Vec<u8>) -> OwnedResponse {
    let response = OwnedResponse::new(status).field("Content-Type", "application/json");
    let response = response.unwrap_or_else(|_| OwnedResponse::new(status)); // It can be sent.
    response.body(body)
}

/// What a code means in HTTP: the table of <https://cloud.google.com/apis/design/errors>.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
