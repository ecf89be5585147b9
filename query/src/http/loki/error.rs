//! Errors as Loki writes them: the reason as text, and nothing around it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use binnacle_model::storage::StorageError;

use super::super::ApiError;
use crate::logql::{MetricError, ParseError};
use crate::promql::EvalError;

/// An answer that is an error.
#[derive(Debug, thiserror::Error)]
pub(super) enum LokiError {
    /// The request is wrong and will be wrong again.
    #[error("{0}")]
    Bad(String),
    /// As everywhere.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl From<ParseError> for LokiError {
    fn from(error: ParseError) -> Self {
        Self::Bad(error.to_string())
    }
}

/// For the gate, whose work answers errors of the API.
pub(super) fn of_metric(error: MetricError) -> ApiError {
    match error {
        MetricError::Pipeline { .. } => ApiError::BadData(error.to_string()),
        MetricError::Eval(error) => ApiError::Eval(error),
    }
}

impl LokiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::Api(error) => match error {
                // A limit is a matter of the query, as in Loki.
                ApiError::BadData(_)
                | ApiError::Eval(EvalError::Execution(_) | EvalError::Storage(StorageError::TooMuch)) => {
                    StatusCode::BAD_REQUEST
                }
                ApiError::Eval(EvalError::Storage(StorageError::Deadline)) => StatusCode::GATEWAY_TIMEOUT,
                ApiError::Busy | ApiError::Eval(EvalError::Storage(StorageError::Crowded)) => {
                    StatusCode::TOO_MANY_REQUESTS
                }
                ApiError::Killed => StatusCode::from_u16(499).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
                ApiError::NotFound(_) => StatusCode::NOT_FOUND,
                ApiError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
                ApiError::Eval(EvalError::Storage(StorageError::Broken(_) | StorageError::Missing(_)))
                | ApiError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }
}

impl IntoResponse for LokiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, self.to_string()).into_response();
        if status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
