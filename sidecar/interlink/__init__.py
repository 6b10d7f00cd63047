"""interLink's wire (0.6): an existing interLink plugin as a provider of pods."""
