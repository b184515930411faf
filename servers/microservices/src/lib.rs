//! The microservices: MalOp decisions, asset tagging, fleet management.
