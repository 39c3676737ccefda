//! Nothing here yet; the first module replaces this line.
