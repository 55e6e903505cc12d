"""What a run is asked: the profile, its paths, and the errors that a user can mend."""
