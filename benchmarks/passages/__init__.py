"""How well passages are found: facts in everyday forms among others that look like them."""
