"""Ways to ask somebody, one file for each kind of provider; `registry.BACKENDS` names them."""
