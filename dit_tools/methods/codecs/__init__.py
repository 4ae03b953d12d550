"""Image codecs: what ``dit compress --method`` chooses from."""
