//! The front door of functions against the real thing on the other side: AWS CLI and boto3.
//! What runs functions is a double that does what payloads say.

mod aws_cli;
mod boto3;
mod commands;
mod double;
mod durable;
mod network;
mod starting;
