"""What a user may ask for: looks and degrees, named styles, recipes that replay both."""
