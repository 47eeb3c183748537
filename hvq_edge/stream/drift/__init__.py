"""Has anything changed since? Sequential tests with a stated rate of false alarms."""
