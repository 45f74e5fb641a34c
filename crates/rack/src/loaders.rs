//! Boot loader files from the distribution's packages.
