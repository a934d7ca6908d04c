//! The page: compiled in, sent compressed as it is, without a key.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use vaquita_page::File;

use crate::state::State;

/// Routes of the page.
pub(crate) fn routes() -> Router<State> {
    vaquita_page::files().into_iter().fold(Router::new(), |router, file| {
        router.route(file.path, get(move |headers: HeaderMap| async move { send(file, &headers) }))
    })
}

fn send(file: File, headers: &HeaderMap) -> Response {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|etags| etags.to_str().ok());
    let known = known.is_some_and(|etags| etags.split(',').any(|etag| etag.trim() == file.etag));
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Body::from(file.body).into_response(),
    };
    let headers = response.headers_mut();
    let own = [("content-type", file.content_type), ("etag", file.etag)];
    for (name, value) in vaquita_page::headers().into_iter().chain(own) {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}
