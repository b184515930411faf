//! The Update server: hosts signed updates, deploys nothing by itself.
