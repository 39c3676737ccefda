//! The vocabulary of stored images, shared by everyone who writes or reads them.
