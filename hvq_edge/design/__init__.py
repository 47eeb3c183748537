"""How everything that people look at looks and speaks: colours, logo, pages, languages."""
