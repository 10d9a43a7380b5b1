"""The seven steps of a run, one module each: what a night does. They import no other step."""
