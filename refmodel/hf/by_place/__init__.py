"""What a runtime derives from a block's number or from how many blocks there are: tables, and the words they are made of."""
