//! The WebApp server: the analyst's page and the REST API.
