"""Estimators whose gradient comes from the MAP oracle of the space and slopes."""
