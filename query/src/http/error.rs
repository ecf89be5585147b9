//! Errors as Prometheus shapes them, and the one place where they get a status.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use binnacle_model::storage::StorageError;
use serde_json::json;

use crate::logs::QueryTooLarge;
use crate::promql::EvalError;

/// An answer that is an error.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request is wrong and will be wrong again.
    #[error("{0}")]
    BadData(String),
    /// The query cannot be answered.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// Too many queries are running. Come back in a moment.
    #[error("too many queries are running; try again in a moment")]
    Busy,
    /// An operator ended the query.
    #[error("the query was ended by an operator")]
    Killed,
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It was not switched on.
    #[error("{0}")]
    Unavailable(String),
    /// A defect of ours.
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    /// Blames a parameter.
    pub fn parameter(name: &str, reason: impl std::fmt::Display) -> Self {
        Self::BadData(format!("invalid parameter {name:?}: {reason}"))
    }

    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadData(_) => (StatusCode::BAD_REQUEST, "bad_data"),
            Self::Eval(EvalError::Execution(_) | EvalError::Storage(StorageError::TooMuch)) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "execution")
            }
            Self::Eval(EvalError::Storage(StorageError::Deadline)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "timeout")
            }
            // As Prometheus: the status that nginx has for a client that left.
            Self::Killed => {
                (StatusCode::from_u16(499).unwrap_or(StatusCode::SERVICE_UNAVAILABLE), "canceled")
            }
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            Self::Busy | Self::Unavailable(_) | Self::Eval(EvalError::Storage(StorageError::Crowded)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
            }
            Self::Eval(EvalError::Storage(StorageError::Broken(_) | StorageError::Missing(_)))
            | Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        Self::Eval(EvalError::Storage(error))
    }
}

impl From<QueryTooLarge> for ApiError {
    fn from(error: QueryTooLarge) -> Self {
        Self::BadData(error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, kind) = self.status();
        let body = json!({ "status": "error", "errorType": kind, "error": self.to_string() });
        let mut response = (status, axum::Json(body)).into_response();
        if matches!(self, Self::Busy | Self::Eval(EvalError::Storage(StorageError::Crowded))) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
