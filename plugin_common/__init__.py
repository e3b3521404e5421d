"""What both plugins share; knows neither of them."""
