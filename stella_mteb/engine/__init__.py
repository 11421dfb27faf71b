"""From texts to vectors: `encoder` is the way of a text, from top to bottom. Imports no other room but `files`."""
