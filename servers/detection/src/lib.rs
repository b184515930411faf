//! The Detection server: ends sensors' connections, keeps the graph, raises evidence.
